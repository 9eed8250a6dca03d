// One layer of experts computed by llama.cpp's ggml (CPU backend), behind four C functions, so that it can take turns
// with the project's kernels inside one process. The graph is the one llama.cpp builds for such a layer: mul_mat_id
// for gate, up and down, SwiGLU, weights, sum over the experts of a token.
//
//   g++ -std=c++17 -O2 -shared -fPIC benchmarks/ggml_moe.cpp -o libggml_moe.so
//       -I LLAMA/ggml/include -L BUILD/bin -lggml -lggml-base -lggml-cpu -Wl,-rpath,BUILD/bin
//
// LLAMA is a source tree of llama.cpp, BUILD its build folder with shared libraries (BUILD/bin).
#include <cstring>
#include <memory>
#include <unordered_map>
#include <vector>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

namespace {

struct Graph {
  ggml_context* context = nullptr;
  ggml_cgraph* graph = nullptr;
  ggml_gallocr_t memory = nullptr;
  ggml_tensor *x = nullptr, *ids = nullptr, *weights = nullptr, *out = nullptr;
};

struct Layer {
  int hidden, width, experts, active;
  ggml_backend_t backend = nullptr;
  ggml_context* context = nullptr;
  ggml_backend_buffer_t buffer = nullptr;
  ggml_tensor *gate = nullptr, *up = nullptr, *down = nullptr;
  std::unordered_map<int, Graph> graphs;  // by number of tokens
};

ggml_type type_of(const char* name) {
  for (int i = 0; i < GGML_TYPE_COUNT; i++) {
    const char* known = ggml_type_name(static_cast<ggml_type>(i));
    if (known && !std::strcmp(known, name)) return static_cast<ggml_type>(i);
  }
  return GGML_TYPE_COUNT;
}

// The buffer type in which ggml rearranges weights for this processor when they are set; null where it has none.
ggml_backend_buffer_type_t repacking_type(ggml_backend_t backend) {
  ggml_backend_dev_t device = ggml_backend_get_device(backend);
  using List = ggml_backend_buffer_type_t* (*)(ggml_backend_dev_t);
  auto list = reinterpret_cast<List>(ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts"));
  for (auto each = list ? list(device) : nullptr; each && *each; each++)
    if (std::strstr(ggml_backend_buft_name(*each), "REPACK")) return *each;
  return nullptr;
}

// Every expert gets the same rows, beginning at another one.
void fill(ggml_tensor* tensor, const uint8_t* one) {
  const size_t row = tensor->nb[1], bytes = tensor->nb[2], experts = size_t(tensor->ne[2]);
  std::unique_ptr<uint8_t[]> all(new uint8_t[bytes * experts]);
  for (size_t e = 0; e < experts; e++) {
    const size_t first = row * (e * 5 % size_t(tensor->ne[1]));
    std::memcpy(all.get() + e * bytes, one + first, bytes - first);
    std::memcpy(all.get() + e * bytes + bytes - first, one, first);
  }
  ggml_backend_tensor_set(tensor, all.get(), 0, bytes * experts);
}

Graph build(Layer& layer, int tokens) {
  Graph g;
  ggml_context* c = g.context = ggml_init({ggml_tensor_overhead() * 256 + ggml_graph_overhead(), nullptr, true});
  ggml_set_input(g.x = ggml_new_tensor_3d(c, GGML_TYPE_F32, layer.hidden, 1, tokens));
  ggml_set_input(g.ids = ggml_new_tensor_2d(c, GGML_TYPE_I32, layer.active, tokens));
  ggml_set_input(g.weights = ggml_new_tensor_3d(c, GGML_TYPE_F32, 1, layer.active, tokens));
  ggml_tensor* up = ggml_mul_mat_id(c, layer.up, g.x, g.ids);
  ggml_tensor* gate = ggml_mul_mat_id(c, layer.gate, g.x, g.ids);
  ggml_tensor* each = ggml_mul(c, ggml_mul_mat_id(c, layer.down, ggml_swiglu_split(c, gate, up), g.ids), g.weights);
  ggml_tensor* sum = ggml_view_2d(c, each, layer.hidden, tokens, each->nb[2], 0);
  for (int a = 1; a < layer.active; a++) sum = ggml_add(c, sum, ggml_view_2d(c, each, layer.hidden, tokens, each->nb[2], a * each->nb[1]));
  ggml_set_output(g.out = ggml_cont(c, sum));
  g.graph = ggml_new_graph(c);
  ggml_build_forward_expand(g.graph, g.out);
  g.memory = ggml_gallocr_new(ggml_backend_cpu_buffer_type());
  ggml_gallocr_alloc_graph(g.memory, g.graph);
  return g;
}

}  // namespace

extern "C" {

void ggml_moe_close(void* handle) {
  Layer* layer = static_cast<Layer*>(handle);
  for (auto& [tokens, g] : layer->graphs) ggml_gallocr_free(g.memory), ggml_free(g.context);
  if (layer->buffer) ggml_backend_buffer_free(layer->buffer);
  ggml_free(layer->context);
  ggml_backend_free(layer->backend);
  delete layer;
}

// gate, up [width, hidden] and down [hidden, width]: the stored bytes of one expert. Null where ggml lacks the type or,
// with `repacked`, does not rearrange it for this processor.
void* ggml_moe_open(const char* type, int hidden, int width, int experts, int active, int threads, int repacked, const uint8_t* gate,
                    const uint8_t* up, const uint8_t* down) {
  const ggml_type kind = type_of(type);
  if (kind == GGML_TYPE_COUNT) return nullptr;
  Layer* layer = new Layer{hidden, width, experts, active};
  layer->backend = ggml_backend_cpu_init();
  ggml_backend_cpu_set_n_threads(layer->backend, threads);
  layer->context = ggml_init({ggml_tensor_overhead() * 8, nullptr, true});
  layer->gate = ggml_new_tensor_3d(layer->context, kind, hidden, width, experts);
  layer->up = ggml_new_tensor_3d(layer->context, kind, hidden, width, experts);
  layer->down = ggml_new_tensor_3d(layer->context, kind, width, hidden, experts);
  const auto where = repacked ? repacking_type(layer->backend) : ggml_backend_cpu_buffer_type();
  layer->buffer = where ? ggml_backend_alloc_ctx_tensors_from_buft(layer->context, where) : nullptr;
  if (!layer->buffer || (repacked && !layer->gate->extra)) {  // `extra` names the rearrangement that was chosen
    ggml_moe_close(layer);
    return nullptr;
  }
  ggml_backend_buffer_set_usage(layer->buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
  fill(layer->gate, gate), fill(layer->up, up), fill(layer->down, down);
  return layer;
}

// x [tokens, hidden], ids and weights [tokens, active], out [tokens, hidden].
void ggml_moe_run(void* handle, const float* x, const int32_t* ids, const float* weights, int tokens, float* out) {
  Layer* layer = static_cast<Layer*>(handle);
  auto found = layer->graphs.find(tokens);
  if (found == layer->graphs.end()) found = layer->graphs.emplace(tokens, build(*layer, tokens)).first;
  Graph& g = found->second;
  const size_t pairs = size_t(tokens) * layer->active;
  std::memcpy(g.x->data, x, size_t(tokens) * layer->hidden * 4);
  std::memcpy(g.ids->data, ids, pairs * 4);
  std::memcpy(g.weights->data, weights, pairs * 4);
  ggml_backend_graph_compute(layer->backend, g.graph);
  std::memcpy(out, g.out->data, size_t(tokens) * layer->hidden * 4);
}
}
