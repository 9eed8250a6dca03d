// Spans of 16 rows and 128 columns from a source matrix straight into a packed stream, where an instruction set has code
// of its own for them: codes are moved, or chosen together with their scales, without a matrix of codes in between.
#pragma once
#include <cstddef>
#include <cstdint>

namespace mimo {

// What was lost: sums of squared differences and of squared weights.
struct Loss {
  double error = 0, weights = 0;
};

struct SpanTiles {
  // 16 rows of 128 bytes, `stride` apart, to 2048 bytes in the order of fp8 spans.
  void (*fp8)(const uint8_t* in, size_t stride, uint8_t* out);
  // 16 rows of 128 signed bytes to 2048 bytes of an int8 span.
  void (*int8)(const uint8_t* in, size_t stride, uint8_t* out);
  // 16 rows of 128 bytes, a 4-bit code each, to 1024 bytes of an int4 or mxfp4 span; `flip` is added to each code, modulo 16.
  void (*codes)(const uint8_t* in, size_t stride, int flip, uint8_t* out);
  // 16 rows of 64 bytes, two e2m1 codes each (low half first), to 1024 bytes of an mxfp4 span.
  void (*nibbles)(const uint8_t* in, size_t stride, uint8_t* out);
  // 16 rows of 128 weights to 1024 bytes of codes and the scales [128 / group][16] of a span: float16 (int4), or e8m0 bytes
  // (mxfp4, whose groups are of 32). fp8: e4m3 codes, scale[r] multiplies row r. Adds to `loss`. False where a weight is not a
  // number.
  bool (*int4_of_fp8)(const uint8_t* in, size_t stride, const float* scale, int group, uint8_t* out, uint8_t* scales, Loss* loss);
  bool (*int4_of_floats)(const float* in, size_t stride, int group, uint8_t* out, uint8_t* scales, Loss* loss);
  bool (*mxfp4_of_fp8)(const uint8_t* in, size_t stride, const float* scale, int group, uint8_t* out, uint8_t* scales, Loss* loss);
  bool (*mxfp4_of_floats)(const float* in, size_t stride, int group, uint8_t* out, uint8_t* scales, Loss* loss);
};

const SpanTiles* avx512_spans();  // null when this build or this processor lacks it

}  // namespace mimo
