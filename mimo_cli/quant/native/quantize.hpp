// Choosing 4-bit and 8-bit codes for float weights. Portable C++ that the compiler vectorizes; whole tiles of int4 and mxfp4
// go to quantize_avx512.cpp where the processor can.
#pragma once
#include <cstdint>

namespace mimo {

// Group-wise symmetric codes -8..7 with one float16 scale per `group` columns (32, 64 or 128) that minimizes the
// weighted squared error: the largest magnitude is tried at -8 and at 7 and somewhat beyond, then the best codes get their
// least-squares scale. weights [rows, cols]; importance [cols] or null (then every column counts alike); codes [rows, cols];
// scales [rows, ceil(cols / group)] float16 bits. A weight counts more the larger it is.
// Returns the sum of squared errors.
double quantize_int4(const float* weights, const float* importance, int rows, int cols, int group, int8_t* codes, uint16_t* scales);

// Codes -127..127, one float16 scale per 128 columns. Returns the sum of squared errors.
double quantize_int8(const float* weights, int rows, int cols, int8_t* codes, uint16_t* scales);

// e2m1 codes and e8m0 scales per 32 columns, the better of the two exponents around the largest magnitude.
double quantize_mxfp4(const float* weights, int rows, int cols, uint8_t* codes, uint8_t* scales);

// Block FP8 (e4m3fn) to floats: out [rows, cols]; scales [ceil(rows / 128), ceil(cols / 128)], row r of the weight uses
// scale row row_block[r].
void expand_fp8(const uint8_t* codes, const float* scales, const int32_t* row_block, int scale_cols, int rows, int cols, float* out);

uint16_t to_half(float v);
float from_half(uint16_t h);

}  // namespace mimo
