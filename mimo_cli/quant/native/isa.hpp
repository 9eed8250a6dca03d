// What an instruction set must offer: a few functions. Add a file like avx2.cpp and a line in isa.cpp for another one.
#pragma once
#include "activations.hpp"
#include "attention.hpp"
#include "matrix.hpp"

namespace mimo {

enum class Epilogue { store, swiglu, accumulate };

// Rows [16 block_begin, 16 block_end) of `weight` times some tokens.
struct RowsTask {
  const Matrix* weight;
  int block_begin, block_end;
  const Activations* activations;
  const int32_t* source;     // [count] which prepared token each pair reads
  const int32_t* target;     // [count] which row of `out` it writes
  const float* factor;       // [count] multiplies the result (accumulate only)
  int count;
  float* out;                // [.., out_stride]
  size_t out_stride;
  Epilogue epilogue;         // swiglu needs two streams; accumulate adds into `out`
};

struct Isa {
  const char* name;
  // Prepare one token for a matrix: x [cols] floats into row `token` of activations already sized; cols may be ragged.
  void (*prepare)(const float* x, int cols, int token, const Matrix& weight, Activations* out);
  void (*rows)(const RowsTask& task);
  void (*attend)(const AttendChunk& chunk);
  void (*dot_rows)(const float* rows, int count, int cols, const float* x, float* out);  // float32 rows times one vector
  void (*silu)(float* x, size_t count);  // x / (1 + exp(-x)) in place
  // About `count` dot product instructions between registers; returns the multiplications done. What prefill is measured against.
  int64_t (*dots)(int64_t count);
};

const Isa* avx512_isa();  // null when this build or this processor lacks it
const Isa* avx2_isa();
const Isa* best_isa(const char* wanted);  // "auto", "avx512", "avx2"; null when not available

}  // namespace mimo
