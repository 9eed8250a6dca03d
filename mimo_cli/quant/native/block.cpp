// Around the matrices of a decoder layer. Compiled without fused products, as attention.cpp.
#include "block.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "compute.hpp"
#include "layers.hpp"
#include "rounding.hpp"

namespace mimo {
namespace {

template <class T>
void norm_row(const T* x, const T* weight, float eps, int size, T* out) {
  constexpr int kSums = 8;
  double sums[kSums] = {};
  int i = 0;
  for (; i + kSums <= size; i += kSums)
    for (int n = 0; n < kSums; n++) {
      const double v = widen(x[i + n]);
      sums[n] += v * v;
    }
  for (; i < size; i++) sums[0] += double(widen(x[i])) * widen(x[i]);
  double total = 0;
  for (const double sum : sums) total += sum;
  const float scale = 1.f / std::sqrt(float(total / size) + eps);
  for (i = 0; i < size; i++) {
    T rounded;
    narrow(widen(x[i]) * scale, &rounded);
    narrow(widen(rounded) * widen(weight[i]), out + i);
  }
}

template <class T>
void norm_all(const Cells& x, const Norm& norm, void* out) {
  for (int t = 0; t < x.tokens; t++) {
    const size_t at = size_t(t) * x.size;
    norm_row(static_cast<const T*>(x.data) + at, static_cast<const T*>(norm.weight), norm.eps, x.size, static_cast<T*>(out) + at);
  }
}

template <class T>
void widen_all(const void* from, size_t count, float* to) {
  for (size_t i = 0; i < count; i++) to[i] = widen(static_cast<const T*>(from)[i]);
}

template <class T>
void narrow_all(const float* from, size_t count, void* to) {
  for (size_t i = 0; i < count; i++) narrow(from[i], static_cast<T*>(to) + i);
}

template <class T>
void round_all(float* values, size_t count) {
  for (size_t i = 0; i < count; i++) {
    T rounded;
    narrow(values[i], &rounded);
    values[i] = widen(rounded);
  }
}

// sum = x + the products, each rounded before.
template <class T>
void add_all(const void* x, const float* product, size_t count, void* sum) {
  for (size_t i = 0; i < count; i++) {
    T rounded;
    narrow(product[i], &rounded);
    narrow(widen(static_cast<const T*>(x)[i]) + widen(rounded), static_cast<T*>(sum) + i);
  }
}

// The choice of one token from its logits, which become scores.
void choose(const Routing& r, float* scores, int64_t* ids, float* weights) {
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  int found = 0;
  for (int e = 0; e < r.experts; e++) scores[e] = 1.f / (1.f + std::exp(-scores[e]));
  const auto rank = [&](int64_t e) {  // a score that is no number comes first, so that the choice stays one
    const float choice = scores[e] + r.bias[e];
    return std::isnan(choice) ? -kLowest : choice;
  };
  for (int e = 0; e < r.experts; e++) {
    const float own = rank(e);
    if (found == r.active && !(own > rank(ids[found - 1]))) continue;
    int at = found < r.active ? found++ : found - 1;
    for (; at > 0 && own > rank(ids[at - 1]); at--) ids[at] = ids[at - 1];
    ids[at] = e;
  }
  float total = 0;
  for (int a = 0; a < r.active; a++) total += weights[a] = scores[ids[a]];
  for (int a = 0; a < r.active; a++) weights[a] = (r.normalizes ? weights[a] / (total + 1e-20f) : weights[a]) * r.factor;
}

}  // namespace

void norm_rows(const Cells& x, const Norm& norm, void* out) {
  x.is_bfloat16 ? norm_all<uint16_t>(x, norm, out) : norm_all<float>(x, norm, out);
}

void Compute::linear(const Matrix& w, const Cells& x, void* y, Precision precision) {
  if (!x.is_bfloat16) return linear(w, static_cast<const float*>(x.data), static_cast<float*>(y), x.tokens, precision);
  const size_t count = size_t(x.tokens) * w.rows;
  float* wide = wide_.ensure(size_t(x.tokens) * x.size);
  widen_all<uint16_t>(x.data, size_t(x.tokens) * x.size, wide);
  linear(w, wide, product_.ensure(count), x.tokens, precision);
  narrow_all<uint16_t>(product_.get(), count, y);
}

void Compute::enter(const Entry& e) {
  const size_t cell = e.x.is_bfloat16 ? 2 : 4, normed_bytes = (size_t(e.x.tokens) * e.x.size * cell + 63) / 64 * 64;
  uint8_t* normed = narrow_.ensure(normed_bytes + size_t(e.x.tokens) * e.qkv.rows * cell);
  norm_rows(e.x, e.norm, normed);
  linear(e.qkv, {normed, e.x.is_bfloat16, e.x.tokens, e.x.size}, normed + normed_bytes, e.precision);
  Rotation rotation = e.rotation;
  rotation.qkv = normed + normed_bytes;
  rotate(rotation);
}

void Compute::leave(const Leave& l) {
  Attention attention = l.attention;
  const size_t mixed = size_t(l.x.tokens) * attention.heads * attention.value_width, count = size_t(l.x.tokens) * l.x.size;
  attention.out = wide_.ensure(mixed);
  attend(attention);
  if (l.x.is_bfloat16) round_all<uint16_t>(attention.out, mixed);
  float* product = product_.ensure(count);
  linear(l.output, attention.out, product, l.x.tokens, l.precision);
  l.x.is_bfloat16 ? add_all<uint16_t>(l.x.data, product, count, l.sum) : add_all<float>(l.x.data, product, count, l.sum);
  norm_rows({l.sum, l.x.is_bfloat16, l.x.tokens, l.x.size}, l.norm, l.normed);
}

void Compute::attend_half(const AttentionHalf& h, const Cells& x, const Turn& turn, const Seen& seen, void* sum, void* normed) {
  const size_t cell = x.is_bfloat16 ? 2 : 4;
  float* query = query_.ensure(size_t(x.tokens) * h.heads * h.width);
  void* keys = static_cast<uint8_t*>(seen.keys) + size_t(seen.offset) * h.width * cell;
  void* values = static_cast<uint8_t*>(seen.values) + size_t(seen.offset) * h.value_width * cell;
  enter({x, h.before, h.qkv, h.qkv_precision,
         {nullptr, x.is_bfloat16, x.tokens, h.heads, h.kv_heads, h.width, h.value_width, h.half, turn.cos, turn.sin, h.value_scale, query, keys,
          values, seen.key_stride, seen.value_stride}});
  leave({{x.tokens, h.heads, h.kv_heads, h.width, h.value_width, query, seen.keys, seen.values, seen.key_stride, seen.value_stride,
          x.is_bfloat16, int(seen.offset), h.window, h.factor, h.sinks, nullptr},
         h.output, h.output_precision, x, h.after, sum, normed});
}

// The result stays in product_, not rounded yet.
void Compute::feed(const FeedForward& f, const Cells& x) {
  const size_t in = size_t(x.tokens) * x.size, count = size_t(x.tokens) * f.gate.rows;
  const float* rows = static_cast<const float*>(x.data);
  if (x.is_bfloat16) widen_all<uint16_t>(x.data, in, wide_.ensure(in)), rows = wide_.get();
  float *gate = gate_.ensure(count), *up = up_.ensure(count);
  linear(f.gate, rows, gate, x.tokens, f.gate_precision);
  linear(f.up, rows, up, x.tokens, f.up_precision);
  if (x.is_bfloat16) round_all<uint16_t>(gate, count), round_all<uint16_t>(up, count);
  isa_->silu(gate, count);
  if (x.is_bfloat16) round_all<uint16_t>(gate, count);
  for (size_t i = 0; i < count; i++) gate[i] *= up[i];
  if (x.is_bfloat16) round_all<uint16_t>(gate, count);
  linear(f.down, gate, product_.ensure(size_t(x.tokens) * f.down.rows), x.tokens, f.down_precision);
}

void Compute::feed_forward(const FeedForward& f, const Cells& x, void* out) {
  feed(f, x);
  const size_t count = size_t(x.tokens) * f.down.rows;
  x.is_bfloat16 ? narrow_all<uint16_t>(product_.get(), count, out) : narrow_all<float>(product_.get(), count, out);
}

void Compute::route(const Routing& r) {
  const size_t count = size_t(r.x.tokens) * r.x.size;
  const float* rows = static_cast<const float*>(r.x.data);
  if (r.x.is_bfloat16) widen_all<uint16_t>(r.x.data, count, wide_.ensure(count)), rows = wide_.get();
  float* scores = product_.ensure(size_t(r.x.tokens) * r.experts);
  float_linear(r.weight, r.experts, r.x.size, rows, scores, r.x.tokens);
  for (int t = 0; t < r.x.tokens; t++)
    choose(r, scores + size_t(t) * r.experts, r.ids + size_t(t) * r.active, r.expert_weights + size_t(t) * r.active);
}

bool Compute::add_experts(const RoutedExperts& e, const Routing& r, const Cells& normed, void* sum, int* used) {
  const int pairs = r.x.tokens * r.active;
  const size_t count = size_t(normed.tokens) * normed.size;
  different_.assign(r.ids, r.ids + pairs);
  std::sort(different_.begin(), different_.end());
  different_.erase(std::unique(different_.begin(), different_.end()), different_.end());
  experts_.clear();
  for (const int64_t id : different_) {
    if (e.slots[id] < 0) return false;
    const Matrix up{e.format, e.group, e.width, normed.size, 2, e.memory + size_t(e.slots[id]) * e.slot_bytes};
    experts_.push_back({up, {e.format, e.group, normed.size, e.width, 1, up.data + up.bytes()}});
  }
  pair_token_.resize(pairs), pair_expert_.resize(pairs);
  for (int p = 0; p < pairs; p++) {
    pair_token_[p] = p / r.active;
    pair_expert_[p] = int32_t(std::lower_bound(different_.begin(), different_.end(), r.ids[p]) - different_.begin());
  }
  const float* rows = static_cast<const float*>(normed.data);
  if (normed.is_bfloat16) widen_all<uint16_t>(normed.data, count, wide_.ensure(count)), rows = wide_.get();
  float* total = product_.ensure(count);
  std::fill(total, total + count, 0.f);
  moe(experts_, pair_token_.data(), pair_expert_.data(), r.expert_weights, pairs, normed.tokens, rows, total, e.precision);
  *used = int(different_.size());
  add_rows(sum, count, normed.is_bfloat16);
  return true;
}

// sum += what the last product left behind, rounded as it would be alone.
void Compute::add_rows(void* sum, size_t count, bool is_bfloat16) {
  is_bfloat16 ? add_all<uint16_t>(sum, product_.get(), count, sum) : add_all<float>(sum, product_.get(), count, sum);
}

int Compute::run(const Layers& layers, int first, const Step& step) {
  using Clock = std::chrono::steady_clock;
  const Cells x{step.sum, layers.is_bfloat16, step.tokens, layers.hidden}, normed{step.normed, layers.is_bfloat16, step.tokens, layers.hidden};
  const int count = int(layers.layers.size());
  for (int i = first; i < count; i++) {
    const Layer& layer = layers.layers[i];
    const auto started = Clock::now();
    attend_half(layer.attention, x, step.turns[layer.turn], step.seen[i], step.sum, step.normed);
    bool is_done = true;
    if (layer.is_routed) {
      Routing routing = layer.routing;
      const size_t choices = size_t(step.tokens) * routing.active;
      routing.x = normed, routing.ids = step.ids + i * choices, routing.expert_weights = step.expert_weights;
      route(routing);
      is_done = add_experts(layer.experts, routing, normed, step.sum, step.used + i);
    } else {
      feed(layer.feed_forward, normed);
      add_rows(step.sum, size_t(step.tokens) * layers.hidden, layers.is_bfloat16);
    }
    step.seconds[i] = std::chrono::duration<double>(Clock::now() - started).count();
    if (!is_done) return i;
  }
  norm_rows(x, layers.last, step.normed);
  return count;
}

}  // namespace mimo
