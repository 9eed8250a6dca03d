// Whole tiles of the search for scales, where an instruction set has code of its own for them.
#pragma once
#include <cstdint>

namespace mimo {

struct QuantizeTiles {
  // 16 rows of one group of n columns (a multiple of 16, at most 128). Pointers stand at the tile's corner; rows are `cols`
  // apart, their scales `groups`; importance [n] or null. Returns the squared error.
  double (*int4)(const float* weights, const float* importance, int cols, int n, int8_t* codes, uint16_t* scales, int groups);
  // 32 columns of one row.
  double (*mxfp4)(const float* weights, uint8_t* codes, uint8_t* scale);
};

const QuantizeTiles* avx512_tiles();  // null when this build or this processor lacks it

}  // namespace mimo
