#include "capi.hpp"

#include <cstring>

#include "compute.hpp"
#include "layers.hpp"
#include "packing.hpp"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

using namespace mimo;

struct mimo_compute {
  Compute compute;
  std::vector<Expert> experts;
};

struct mimo_layers {
  Layers layers;
};

namespace {

Matrix matrix(int format, int group, int rows, int cols, int streams, const uint8_t* data) {
  return {static_cast<Format>(format), group, rows, cols, streams, data};
}

AttentionHalf attention_half(int hidden, const void* before, const void* after, float eps_before, float eps_after, int format, int group,
                             const uint8_t* qkv, int precision, int output_format, int output_group, const uint8_t* output,
                             int output_precision, int heads, int kv_heads, int width, int value_width, int half, float value_scale,
                             int window, float factor, const float* sinks) {
  const int rows = (heads + kv_heads) * width + kv_heads * value_width;
  return {{before, eps_before}, {after, eps_after}, matrix(format, group, rows, hidden, 1, qkv),
          matrix(output_format, output_group, hidden, heads * value_width, 1, output), static_cast<Precision>(precision),
          static_cast<Precision>(output_precision), heads, kv_heads, width, value_width, half, value_scale, window, factor, sinks};
}

FeedForward feed_forward(int hidden, int width, int gate_format, int gate_group, const uint8_t* gate, int gate_precision, int up_format,
                         int up_group, const uint8_t* up, int up_precision, int down_format, int down_group, const uint8_t* down,
                         int down_precision) {
  return {matrix(gate_format, gate_group, width, hidden, 1, gate), matrix(up_format, up_group, width, hidden, 1, up),
          matrix(down_format, down_group, hidden, width, 1, down), static_cast<Precision>(gate_precision),
          static_cast<Precision>(up_precision), static_cast<Precision>(down_precision)};
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) uint64_t read_all(const uint8_t* p, int64_t bytes) {
  __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
  for (int64_t i = 0; i + 128 <= bytes; i += 128) {
    a = _mm256_add_epi64(a, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i)));
    b = _mm256_add_epi64(b, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i + 32)));
    c = _mm256_add_epi64(c, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i + 64)));
    d = _mm256_add_epi64(d, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i + 96)));
  }
  alignas(32) uint64_t lanes[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d)));
  return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}
#else
uint64_t read_all(const uint8_t* p, int64_t bytes) {
  uint64_t sum = 0, v;
  for (int64_t i = 0; i + 8 <= bytes; i += 8) std::memcpy(&v, p + i, 8), sum += v;
  return sum;
}
#endif

}  // namespace

extern "C" {

mimo_compute* mimo_open(const char* isa, int threads) {
  const Isa* found = best_isa(isa);
  return found ? new mimo_compute{Compute(found, threads), {}} : nullptr;
}

void mimo_close(mimo_compute* c) { delete c; }

const char* mimo_isa(const mimo_compute* c) { return c->compute.isa().name; }

int64_t mimo_packed_bytes(int format, int group, int rows, int cols, int streams) {
  if (format < 0 || format > 4 || rows < 1 || cols < 1 || streams < 1 || streams > 2) return -1;
  if (format == int(Format::int4) && group != 32 && group != 64 && group != 128) return -1;
  return int64_t(matrix(format, group, rows, cols, streams, nullptr).bytes());
}

void mimo_pack(mimo_compute* c, int format, int group, int rows, int cols, int streams, uint8_t* data, int which, const void* codes,
               const void* scales) {
  const Matrix w = matrix(format, group, rows, cols, streams, data);
  c->compute.pool().run([&](int thread, int threads, Barrier&) {
    const int from = int(int64_t(w.blocks()) * thread / threads), to = int(int64_t(w.blocks()) * (thread + 1) / threads);
    pack_rows(w, data, which, codes, scales, from * kBlockRows, to * kBlockRows);
  });
}

void mimo_pack_nibbles(mimo_compute* c, int rows, int cols, int streams, uint8_t* data, int which, const uint8_t* nibbles,
                       const uint8_t* scales) {
  const Matrix w = matrix(int(Format::mxfp4), 32, rows, cols, streams, data);
  c->compute.pool().run([&](int thread, int threads, Barrier&) {
    const int from = int(int64_t(w.blocks()) * thread / threads), to = int(int64_t(w.blocks()) * (thread + 1) / threads);
    pack_nibbles(w, data, which, nibbles, scales, from * kBlockRows, to * kBlockRows);
  });
}

void mimo_linear(mimo_compute* c, int format, int group, int rows, int cols, const uint8_t* data, const float* x, float* y, int tokens,
                 int precision) {
  c->compute.linear(matrix(format, group, rows, cols, 1, data), x, y, tokens, static_cast<Precision>(precision));
}

void mimo_moe(mimo_compute* c, int format, int group, int hidden, int width, int experts, const uint64_t* gate_up, const uint64_t* down,
              const int32_t* pair_token, const int32_t* pair_expert, const float* pair_weight, int pairs, int tokens, const float* x,
              float* out, int precision) {
  c->experts.clear();
  for (int e = 0; e < experts; e++)
    c->experts.push_back({matrix(format, group, width, hidden, 2, reinterpret_cast<const uint8_t*>(gate_up[e])),
                          matrix(format, group, hidden, width, 1, reinterpret_cast<const uint8_t*>(down[e]))});
  c->compute.moe(c->experts, pair_token, pair_expert, pair_weight, pairs, tokens, x, out, static_cast<Precision>(precision));
}

void mimo_rotate(const void* qkv, int is_bfloat16, int tokens, int heads, int kv_heads, int width, int value_width, int half, const float* cos,
                 const float* sin, float value_scale, float* query, void* keys, void* values) {
  rotate({qkv, is_bfloat16 != 0, tokens, heads, kv_heads, width, value_width, half, cos, sin, value_scale, query, keys, values,
          int64_t(tokens) * width, int64_t(tokens) * value_width});
}

void mimo_attend(mimo_compute* c, int tokens, int heads, int kv_heads, int width, int value_width, const float* query, const void* keys,
                 const void* values, int64_t key_stride, int64_t value_stride, int is_bfloat16, int offset, int window, float factor,
                 const float* sinks, float* out) {
  c->compute.attend({tokens, heads, kv_heads, width, value_width, query, keys, values, key_stride, value_stride, is_bfloat16 != 0, offset, window,
                     factor, sinks, out});
}

void mimo_norm(const void* x, int is_bfloat16, int tokens, int size, const void* norm_weight, float eps, void* out) {
  norm_rows({x, is_bfloat16 != 0, tokens, size}, {norm_weight, eps}, out);
}

void mimo_linear_cells(mimo_compute* c, int format, int group, int rows, int cols, const uint8_t* data, const void* x, int is_bfloat16, void* y,
                       int tokens, int precision) {
  c->compute.linear(matrix(format, group, rows, cols, 1, data), {x, is_bfloat16 != 0, tokens, cols}, y, static_cast<Precision>(precision));
}

void mimo_attention_block(mimo_compute* c, const void* x, int is_bfloat16, int tokens, int hidden, const void* before, const void* after,
                          float eps_before, float eps_after, int format, int group, const uint8_t* qkv, int precision, int output_format,
                          int output_group, const uint8_t* output, int output_precision, int heads, int kv_heads, int width,
                          int value_width, int half, const float* cos, const float* sin, float value_scale, void* keys, void* values,
                          int64_t key_stride, int64_t value_stride, int offset, int window, float factor, const float* sinks, void* sum,
                          void* normed) {
  const AttentionHalf attention = attention_half(hidden, before, after, eps_before, eps_after, format, group, qkv, precision, output_format,
                                                 output_group, output, output_precision, heads, kv_heads, width, value_width, half,
                                                 value_scale, window, factor, sinks);
  c->compute.attend_half(attention, {x, is_bfloat16 != 0, tokens, hidden}, {cos, sin}, {keys, values, key_stride, value_stride, offset}, sum,
                         normed);
}

void mimo_feed_forward(mimo_compute* c, const void* x, int is_bfloat16, int tokens, int hidden, int width, int gate_format, int gate_group,
                       const uint8_t* gate, int gate_precision, int up_format, int up_group, const uint8_t* up, int up_precision,
                       int down_format, int down_group, const uint8_t* down, int down_precision, void* out) {
  c->compute.feed_forward(feed_forward(hidden, width, gate_format, gate_group, gate, gate_precision, up_format, up_group, up, up_precision,
                                       down_format, down_group, down, down_precision),
                          {x, is_bfloat16 != 0, tokens, hidden}, out);
}

mimo_layers* mimo_layers_open(int hidden, int is_bfloat16, const void* last, float eps) {
  return new mimo_layers{{hidden, is_bfloat16 != 0, {last, eps}, {}}};
}

void mimo_layers_close(mimo_layers* l) { delete l; }

void mimo_layers_attention(mimo_layers* l, int turn, const void* before, const void* after, float eps_before, float eps_after, int format,
                           int group, const uint8_t* qkv, int precision, int output_format, int output_group, const uint8_t* output,
                           int output_precision, int heads, int kv_heads, int width, int value_width, int half, float value_scale,
                           int window, float factor, const float* sinks) {
  Layer layer{};
  layer.turn = turn;
  layer.attention = attention_half(l->layers.hidden, before, after, eps_before, eps_after, format, group, qkv, precision, output_format,
                                   output_group, output, output_precision, heads, kv_heads, width, value_width, half, value_scale, window,
                                   factor, sinks);
  l->layers.layers.push_back(layer);
}

void mimo_layers_feed_forward(mimo_layers* l, int width, int gate_format, int gate_group, const uint8_t* gate, int gate_precision, int up_format,
                              int up_group, const uint8_t* up, int up_precision, int down_format, int down_group, const uint8_t* down,
                              int down_precision) {
  l->layers.layers.back().feed_forward = feed_forward(l->layers.hidden, width, gate_format, gate_group, gate, gate_precision, up_format,
                                                      up_group, up, up_precision, down_format, down_group, down, down_precision);
}

void mimo_layers_experts(mimo_layers* l, const float* weight, const float* bias, int experts, int active, int normalizes, float factor, int format,
                         int group, int width, int precision, const int32_t* slots, const uint8_t* memory, int64_t slot_bytes) {
  Layer& layer = l->layers.layers.back();
  layer.is_routed = true;
  layer.routing = {{}, weight, bias, experts, active, normalizes != 0, factor, nullptr, nullptr};
  layer.experts = {static_cast<Format>(format), group, width, static_cast<Precision>(precision), slots, memory, size_t(slot_bytes)};
}

int mimo_layers_run(mimo_compute* c, const mimo_layers* l, int first, int tokens, void* sum, void* normed, const float* const* turns,
                    const int64_t* seen, int64_t* ids, float* expert_weights, int32_t* used, double* seconds) {
  std::vector<Seen> places;
  for (size_t i = 0; i < l->layers.layers.size(); i++, seen += 5)
    places.push_back({reinterpret_cast<void*>(seen[0]), reinterpret_cast<void*>(seen[1]), seen[2], seen[3], seen[4]});
  return c->compute.run(l->layers, first,
                        {tokens, sum, normed, {{turns[0], turns[1]}, {turns[2], turns[3]}}, places.data(), ids, expert_weights, used, seconds});
}

void mimo_route(mimo_compute* c, const void* x, int is_bfloat16, int tokens, int hidden, const float* weight, const float* bias, int experts,
                int active, int normalizes, float factor, int64_t* ids, float* expert_weights) {
  c->compute.route({{x, is_bfloat16 != 0, tokens, hidden}, weight, bias, experts, active, normalizes != 0, factor, ids, expert_weights});
}

int64_t mimo_dot_probe(mimo_compute* c, int64_t count) {
  std::atomic<int64_t> total{0};
  c->compute.pool().run([&](int, int, Barrier&) { total += c->compute.isa().dots(count); });
  return total;
}

uint64_t mimo_read_probe(mimo_compute* c, const uint8_t* data, int64_t bytes, int threads) {
  std::atomic<uint64_t> total{0};
  c->compute.pool().run([&](int thread, int all, Barrier&) {
    if (thread >= threads) return;
    const int use = threads < all ? threads : all;
    const int64_t share = bytes / use / 256 * 256;
    total += read_all(data + share * thread, share);
  });
  return total;
}
}
