// Whole decoder layers one after the other, for the few tokens of a decoding step: where all weights are at hand, a step
// goes from the first layer to the last norm without a way back through Python, which would find its own code and data
// pushed out of the caches by the weights every time.
//
// Where an expert is not in memory the run stops at that layer, its attention done and its experts chosen. Whoever called
// computes them, adds them to the sum, and goes on with the next layer.
#pragma once
#include <vector>

#include "block.hpp"

namespace mimo {

// Where the experts of a layer lie, gate and up in one stream, down behind it: in slots of one size, negative for those
// that are not in memory.
struct RoutedExperts {
  Format format;
  int group, width;
  Precision precision;
  const int32_t* slots;  // [experts]
  const uint8_t* memory;
  size_t slot_bytes;
};

struct Layer {
  AttentionHalf attention;
  int turn;                 // which of the step's rotations
  bool is_routed;
  FeedForward feed_forward;  // if not
  Routing routing;           // if so, without x, ids and weights
  RoutedExperts experts;
};

struct Layers {
  int hidden;
  bool is_bfloat16;
  Norm last;  // behind the last layer
  std::vector<Layer> layers;
};

constexpr int kTurns = 2;

struct Step {
  int tokens;
  void *sum, *normed;     // [tokens, hidden]: in, the rows before the first layer; out, those behind the last and their norm
  Turn turns[kTurns];
  const Seen* seen;       // [layers]
  int64_t* ids;           // [layers, tokens, active]: experts chosen
  float* expert_weights;  // [tokens, active]: of the last layer with experts
  int* used;              // [layers]: different experts computed
  double* seconds;        // [layers]
};

}  // namespace mimo
