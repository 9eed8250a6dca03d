// Between plain row-major codes and the packed stream. Portable; runs once per matrix.
#pragma once
#include "matrix.hpp"

namespace mimo {

// Put one matrix into stream `which` of `w`. codes: int4 and int8 one signed byte per value, mxfp4 one e2m1 code per
// byte, fp8 one byte, bf16 two bytes, all [rows, cols]. scales [rows, ceil(cols / group)]: float16 (int4, int8),
// e8m0 bytes (mxfp4); fp8: float per 16 rows and span, [blocks, spans]; bf16: none. Rows [row_begin, row_end), multiples of 16.
void pack_rows(const Matrix& w, uint8_t* data, int which, const void* codes, const void* scales, int row_begin, int row_end);

// The same for mxfp4 as it is released: nibbles [rows, cols / 2], the low half is the even column, scales [rows, cols / 32].
void pack_nibbles(const Matrix& w, uint8_t* data, int which, const uint8_t* nibbles, const uint8_t* scales, int row_begin, int row_end);

}  // namespace mimo
