// bfloat16 and float32 cells, read and written as torch does: to the nearest, ties to even.
#pragma once
#include <cstdint>
#include <cstring>

namespace mimo {

inline float widen(uint16_t v) {
  const uint32_t bits = uint32_t(v) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}
inline float widen(float v) { return v; }

inline void narrow(float v, uint16_t* out) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  *out = uint16_t((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}
inline void narrow(float v, float* out) { *out = v; }

}  // namespace mimo
