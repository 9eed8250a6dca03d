// The things the network asks for: a dense layer, a whole layer of experts, attention of a few tokens.
#pragma once
#include <vector>

#include "activations.hpp"
#include "attention.hpp"
#include "block.hpp"
#include "isa.hpp"
#include "pool.hpp"

namespace mimo {

struct Layers;
struct RoutedExperts;
struct Step;

struct Expert {
  Matrix gate_up;  // [intermediate, hidden], two streams
  Matrix down;     // [hidden, intermediate]
};

class Compute {
 public:
  Compute(const Isa* isa, int threads) : isa_(isa), pool_(threads) {}
  const Isa& isa() const { return *isa_; }
  int threads() const { return pool_.threads(); }
  Pool& pool() { return pool_; }

  // y [tokens, rows] = x [tokens, cols] W^T.
  void linear(const Matrix& w, const float* x, float* y, int tokens, Precision precision);

  // out [tokens, hidden] += weight * down(silu(gate x) * (up x)) for every pair of a token and an expert. A token's experts
  // are added in ascending order of their place in `experts`; pair_expert [pairs] indexes that, pair_token [pairs] x and out.
  void moe(const std::vector<Expert>& experts, const int32_t* pair_token, const int32_t* pair_expert, const float* pair_weight, int pairs,
           int tokens, const float* x, float* out, Precision precision);

  void attend(const Attention& attention);

  // What stands around the matrices of a layer, see block.hpp.
  void linear(const Matrix& w, const Cells& x, void* y, Precision precision);  // rounded to the dtype of x
  void attend_half(const AttentionHalf& half, const Cells& x, const Turn& turn, const Seen& seen, void* sum, void* normed);
  void feed_forward(const FeedForward& f, const Cells& x, void* out);
  void route(const Routing& routing);

  // Layers from `first` on, see layers.hpp. Returns where it stopped: behind the last, or at one that lacks an expert.
  int run(const Layers& layers, int first, const Step& step);

  // y [tokens, rows] = x [tokens, cols] W^T with W in float32: routers.
  void float_linear(const float* w, int rows, int cols, const float* x, float* y, int tokens);

 private:
  void enter(const Entry& entry);
  void leave(const Leave& leave);
  void feed(const FeedForward& f, const Cells& x);
  bool add_experts(const RoutedExperts& experts, const Routing& routing, const Cells& normed, void* sum, int* used);
  void add_rows(void* sum, size_t count, bool is_bfloat16);
  void size(Activations& a, const Matrix& w, const float* x, size_t count, int tokens, Precision precision);

  const Isa* isa_;
  Pool pool_;
  Activations inputs_, hidden_;
  Scratch<float> intermediate_, partials_, wide_, product_, query_, gate_, up_;
  Scratch<uint8_t> narrow_;
  std::vector<int32_t> begin_, active_, token_, place_, pair_token_, pair_expert_;
  std::vector<int64_t> different_;
  std::vector<Expert> experts_;
  std::vector<float> factor_;
};

}  // namespace mimo
