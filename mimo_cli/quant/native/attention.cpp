// Attention around the chunks that an instruction set computes, and rotary embedding. Compiled without fused products, so
// that what is rounded in torch is rounded here.
#include "attention.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "compute.hpp"
#include "rounding.hpp"

namespace mimo {
namespace {

template <class T>
void rotate_head(const T* in, T* out, int width, int half, const float* cos, const float* sin) {
  for (int i = 0; i < half; i++) {
    const float a = widen(in[i]), b = widen(in[half + i]);
    const float left = a * cos[i], right = b * sin[i], low = b * cos[i], high = a * sin[i];
    narrow(left - right, out + i), narrow(low + high, out + half + i);
  }
  std::copy(in + 2 * half, in + width, out + 2 * half);
}

template <class T>
void rotate_as(const Rotation& r) {
  const size_t row = size_t(r.heads + r.kv_heads) * r.width + size_t(r.kv_heads) * r.value_width;
  T turned[2048];
  for (int t = 0; t < r.tokens; t++) {
    const T* in = static_cast<const T*>(r.qkv) + t * row;
    const float *cos = r.cos + size_t(t) * r.half, *sin = r.sin + size_t(t) * r.half;
    for (int h = 0; h < r.heads; h++, in += r.width) {
      rotate_head(in, turned, r.width, r.half, cos, sin);
      float* query = r.query + (size_t(t) * r.heads + h) * r.width;
      for (int i = 0; i < r.width; i++) query[i] = widen(turned[i]);
    }
    for (int h = 0; h < r.kv_heads; h++, in += r.width)
      rotate_head(in, static_cast<T*>(r.keys) + h * r.key_stride + size_t(t) * r.width, r.width, r.half, cos, sin);
    for (int h = 0; h < r.kv_heads; h++, in += r.value_width) {
      T* values = static_cast<T*>(r.values) + h * r.value_stride + size_t(t) * r.value_width;
      for (int i = 0; i < r.value_width; i++) narrow(widen(in[i]) * r.value_scale, values + i);
    }
  }
}

int first_key(const Attention& a, int token) { return a.window < 0 ? 0 : std::max(0, a.offset + token - a.window); }
int chunks_of(const Attention& a, int token) { return (a.offset + token + 1 - first_key(a, token) + kChunkKeys - 1) / kChunkKeys; }

// What a chunk leaves for each query of its group: largest, total, mixed.
struct Partial {
  float *largest, *total, *mixed;
};

void join(const Attention& a, int token, int kv_head, const Partial* parts, int count) {
  const int group = a.heads / a.kv_heads;
  for (int g = 0; g < group; g++) {
    const int head = kv_head * group + g;
    float top = a.sinks ? a.sinks[head] : -std::numeric_limits<float>::infinity();
    for (int c = 0; c < count; c++) top = std::max(top, parts[c].largest[g]);
    float total = a.sinks ? std::exp(a.sinks[head] - top) : 0.f;
    float* out = a.out + (size_t(token) * a.heads + head) * a.value_width;
    std::fill(out, out + a.value_width, 0.f);
    for (int c = 0; c < count; c++) {
      const float share = std::exp(parts[c].largest[g] - top);
      total += parts[c].total[g] * share;
      const float* mixed = parts[c].mixed + size_t(g) * a.value_width;
      for (int i = 0; i < a.value_width; i++) out[i] += mixed[i] * share;
    }
    for (int i = 0; i < a.value_width; i++) out[i] /= total;
  }
}

}  // namespace

void rotate(const Rotation& r) { r.is_bfloat16 ? rotate_as<uint16_t>(r) : rotate_as<float>(r); }

void Compute::attend(const Attention& a) {
  const int group = a.heads / a.kv_heads, stride = (a.width + 15) / 16 * 16;
  const size_t partial_floats = size_t(group) * (a.value_width + 2);
  int chunks = 0;  // of the token with the most
  for (int t = 0; t < a.tokens; t++) chunks = std::max(chunks, chunks_of(a, t));
  const int units = a.tokens * a.kv_heads * chunks;
  const size_t query_floats = size_t(group) * stride, scratch = query_floats + size_t(group) * kChunkKeys;
  float* partials = partials_.ensure(units * partial_floats + pool_.threads() * scratch);
  float* scratches = partials + units * partial_floats;
  auto partial = [&](int unit) {
    float* p = partials + unit * partial_floats;
    return Partial{p, p + group, p + 2 * group};
  };
  std::atomic<int> next{0};
  const size_t cell = a.is_bfloat16 ? 2 : 4;
  pool_.run([&](int thread, int threads, Barrier& barrier) {
    float* queries = scratches + thread * scratch;
    for (int unit; (unit = next.fetch_add(1, std::memory_order_relaxed)) < units;) {
      const int token = unit / (a.kv_heads * chunks), head = unit / chunks % a.kv_heads, chunk = unit % chunks;
      if (chunk >= chunks_of(a, token)) continue;
      const int first = first_key(a, token) + chunk * kChunkKeys, count = std::min(kChunkKeys, a.offset + token + 1 - first);
      std::fill(queries, queries + query_floats, 0.f);
      for (int g = 0; g < group; g++) {
        const float* q = a.query + (size_t(token) * a.heads + head * group + g) * a.width;
        std::copy(q, q + a.width, queries + size_t(g) * stride);
      }
      const auto at = [&](const void* base, int64_t head_stride, int width) {
        return static_cast<const uint8_t*>(base) + (head * head_stride + int64_t(first) * width) * cell;
      };
      const Partial p = partial(unit);
      isa_->attend({queries, group, a.width, a.value_width, stride, at(a.keys, a.key_stride, a.width), at(a.values, a.value_stride, a.value_width),
                    a.is_bfloat16, count, a.factor, queries + query_floats, p.largest, p.total, p.mixed});
    }
    barrier.wait();
    for (int i = thread; i < a.tokens * a.kv_heads; i += threads) {
      const int token = i / a.kv_heads, count = chunks_of(a, token);
      std::vector<Partial> parts;
      for (int c = 0; c < count; c++) parts.push_back(partial(i * chunks + c));
      join(a, token, i % a.kv_heads, parts.data(), count);
    }
  });
}

}  // namespace mimo
