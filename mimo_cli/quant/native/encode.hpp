// From a source matrix to one stream of a packed matrix, span by span, and back to floats for comparing.
#pragma once
#include "matrix.hpp"
#include "spans.hpp"

namespace mimo {

// A matrix [rows, cols] in memory, row-major without gaps. fp8: e4m3 codes; row r has the scales [spans] of row
// row_block[r] of `scales`. floats: float32, `scales` and `row_block` null.
struct Source {
  enum Kind : int32_t { fp8 = 0, floats = 1 };
  Kind kind;
  const void* data;
  const float* scales;
  const int32_t* row_block;
};

// True where `encode` is implemented: on this processor, for whole spans.
bool can_encode(int rows, int cols);

// Choose int4 or mxfp4 codes and scales and write them into stream `which` of `w`. False where a weight is not a number.
bool encode(const Matrix& w, uint8_t* data, int which, const Source& source, Loss* loss);

// True if any of the e4m3 codes is NaN.
bool any_fp8_nan(const uint8_t* codes, size_t count);

// Stream `which` of `w` as float32 [rows, cols]. Shares no code with the writing side.
void decode_stream(const Matrix& w, int which, float* out);

// What b lost of a: sums of squared differences and of squares of a; *largest: the largest difference. NaN counts as lost.
Loss compare_floats(const float* a, const float* b, size_t count, double* largest);

}  // namespace mimo
