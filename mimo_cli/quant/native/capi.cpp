#include "capi.hpp"

#include <cstring>

#include "compute.hpp"
#include "packing.hpp"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

using namespace mimo;

struct mimo_compute {
  Compute compute;
  std::vector<Expert> experts;
  Scratch<float> query;
};

namespace {

Matrix matrix(int format, int group, int rows, int cols, int streams, const uint8_t* data) {
  return {static_cast<Format>(format), group, rows, cols, streams, data};
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
  return found ? new mimo_compute{Compute(found, threads), {}, {}} : nullptr;
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

void mimo_float_linear(mimo_compute* c, const float* w, int rows, int cols, const float* x, float* y, int tokens) {
  c->compute.float_linear(w, rows, cols, x, y, tokens);
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
  const int rows = (heads + kv_heads) * width + kv_heads * value_width;
  const size_t cell = is_bfloat16 ? 2 : 4;
  float* query = c->query.ensure(size_t(tokens) * heads * width);
  void* new_keys = static_cast<uint8_t*>(keys) + size_t(offset) * width * cell;
  void* new_values = static_cast<uint8_t*>(values) + size_t(offset) * value_width * cell;
  const Cells cells{x, is_bfloat16 != 0, tokens, hidden};
  c->compute.enter({cells,
                    {before, eps_before},
                    matrix(format, group, rows, hidden, 1, qkv),
                    static_cast<Precision>(precision),
                    {nullptr, is_bfloat16 != 0, tokens, heads, kv_heads, width, value_width, half, cos, sin, value_scale, query, new_keys,
                     new_values, key_stride, value_stride}});
  c->compute.leave({{tokens, heads, kv_heads, width, value_width, query, keys, values, key_stride, value_stride, is_bfloat16 != 0, offset, window,
                     factor, sinks, nullptr},
                    matrix(output_format, output_group, hidden, heads * value_width, 1, output),
                    static_cast<Precision>(output_precision),
                    cells,
                    {after, eps_after},
                    sum,
                    normed});
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
