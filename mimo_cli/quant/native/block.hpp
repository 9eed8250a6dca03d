// What stands around the matrices of a decoder layer, for the few tokens of a decoding step: norms, roundings, residual
// sums and the router's choice, so that a step returns to Python twice a layer instead of after every product.
//
// All is rounded where torch rounds a network of that dtype. A token's row does not depend on the others.
#pragma once
#include "attention.hpp"
#include "matrix.hpp"
#include "activations.hpp"

namespace mimo {

// Rows of float32 or bfloat16 cells.
struct Cells {
  const void* data;
  bool is_bfloat16;
  int tokens, size;
};

struct Norm {
  const void* weight;  // [size] of the dtype of the rows
  float eps;
};

// x / rms(x) rounded, times the weight, rounded. The squares are summed in float64. out: as x.
void norm_rows(const Cells& x, const Norm& norm, void* out);

// norm -> fused projection -> rotated heads. rotation.qkv is not read.
struct Entry {
  Cells x;
  Norm norm;
  Matrix qkv;
  Precision precision;
  Rotation rotation;
};

// attention -> output projection -> sum with x -> norm. attention.out is not written.
struct Leave {
  Attention attention;
  Matrix output;
  Precision precision;
  Cells x;
  Norm norm;
  void *sum, *normed;  // as x; the sum may stand where x does
};

// The attention half of a layer: all that stays the same from step to step.
struct AttentionHalf {
  Norm before, after;
  Matrix qkv, output;
  Precision qkv_precision, output_precision;
  int heads, kv_heads, width, value_width, half;
  float value_scale;
  int window;  // as in Attention
  float factor;
  const float* sinks;
};

// What is seen, the rows of the step being written behind `offset`: [kv_heads, offset + tokens, ..] in the dtype of the rows.
struct Seen {
  void *keys, *values;
  int64_t key_stride, value_stride, offset;
};

// Cosines and sines [tokens, half].
struct Turn {
  const float *cos, *sin;
};

// down(silu(gate x) * (up x)), rounded after every operation.
struct FeedForward {
  Matrix gate, up, down;
  Precision gate_precision, up_precision, down_precision;
};

// Scores of all experts by a sigmoid, the `active` best of score + bias (of equals the lower one first), their weights.
struct Routing {
  Cells x;
  const float *weight, *bias;  // [experts, size], [experts]
  int experts, active;
  bool normalizes;
  float factor;
  int64_t* ids;          // [tokens, active]
  float* expert_weights; // [tokens, active]
};

}  // namespace mimo
