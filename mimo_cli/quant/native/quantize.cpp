#include "quantize.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "quantize_tiles.hpp"

// One body, compiled for several instruction sets; the loader picks. Clang and non-x86 builds take the plain one.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define MIMO_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MIMO_CLONES
#endif

namespace mimo {
namespace {

// Inlined into each clone, so that they are compiled for its instruction set.
#define MIMO_INLINE inline __attribute__((always_inline))

MIMO_INLINE float nearest(float x) { return __builtin_rintf(x); }
MIMO_INLINE float clamp(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

MIMO_INLINE uint16_t half_of(float v) {  // round to nearest even; overflow saturates at 65504, a scale must stay finite
  uint32_t x;
  std::memcpy(&x, &v, 4);
  const uint16_t sign = uint16_t(x >> 16 & 0x8000);
  x &= 0x7fffffff;
  if (x >= 0x477ff000) return x > 0x7f800000 ? uint16_t(sign | 0x7e00) : uint16_t(sign | 0x7bff);
  if (x < 0x38800000) {  // subnormal half: add a number whose last bit is 2^-24
    float magnitude;
    std::memcpy(&magnitude, &x, 4);
    const float shifted = magnitude + 0.5f;
    std::memcpy(&x, &shifted, 4);
    return uint16_t(sign | (x - 0x3f000000));
  }
  return uint16_t(sign | ((x - 0x38000000 + 0xfff + (x >> 13 & 1)) >> 13));
}

MIMO_INLINE float float_of(uint16_t h) {
  // exponent and mantissa moved into a float's place are the value times 2^-112, subnormals included
  uint32_t bits = uint32_t(h & 0x7fff) << 13;
  float v;
  std::memcpy(&v, &bits, 4);
  v *= 5.192296858534828e33f;  // 2^112
  if ((h & 0x7c00) == 0x7c00) v = h & 0x3ff ? NAN : INFINITY;
  return h & 0x8000 ? -v : v;
}

// The same group of columns of sixteen rows, one row per lane of a vector: the search needs no sum across a register.
constexpr int kLanes = 16, kMaxGroup = 128;
typedef float Lanes __attribute__((vector_size(64)));
typedef int32_t Bits __attribute__((vector_size(64)));

struct Groups {
  Lanes value[kMaxGroup], weight[kMaxGroup];
};

MIMO_INLINE Lanes nearest_lanes(Lanes x) { return (x + 12582912.f) - 12582912.f; }  // 1.5 * 2^23: rounds half to even
MIMO_INLINE Lanes clamp_lanes(Lanes x) {
  x = x < -8.f ? Lanes{} - 8.f : x;
  return x > 7.f ? Lanes{} + 7.f : x;
}
MIMO_INLINE Lanes magnitude(Lanes x) { return (Lanes)((Bits)x & 0x7fffffff); }

MIMO_INLINE Lanes rounded_to_half(Lanes x) {
  const Bits bits = (Bits)x;
  const Lanes normal = (Lanes)((bits + 0xfff + (bits >> 13 & 1)) & ~0x1fff);
  const Lanes subnormal = (x + 0.75f) - 0.75f;  // the last bit of 0.75 +- x is 2^-24, as that of a subnormal half
  const Lanes y = magnitude(x) < 6.103515625e-5f ? subnormal : normal;
  return y > 65504.f ? Lanes{} + 65504.f : y < -65504.f ? Lanes{} - 65504.f : y;
}

MIMO_INLINE Lanes inverse_of(Lanes scale) { return scale != 0.f ? 1.f / scale : Lanes{}; }

// Weighted squared error of each lane with codes clamped to -8..7.
MIMO_INLINE Lanes error_of(const Groups& g, int n, Lanes scale) {
  const Lanes inverse = inverse_of(scale);
  Lanes sum[2] = {};
  for (int i = 0; i < n; i++) {
    const Lanes d = g.value[i] - clamp_lanes(nearest_lanes(g.value[i] * inverse)) * scale;
    sum[i & 1] += g.weight[i] * d * d;
  }
  return sum[0] + sum[1];
}

MIMO_INLINE Lanes least_squares(const Groups& g, int n, Lanes scale) {
  const Lanes inverse = inverse_of(scale);
  Lanes top{}, bottom{};
  for (int i = 0; i < n; i++) {
    const Lanes q = clamp_lanes(nearest_lanes(g.value[i] * inverse)), wq = g.weight[i] * q;
    top += wq * g.value[i];
    bottom += wq * q;
  }
  return bottom > 0.f ? top / bottom : scale;
}

MIMO_INLINE Lanes choose_int4_scales(const Groups& g, int n) {
  Lanes low{}, high{};
  for (int i = 0; i < n; i++) {
    low = g.value[i] < low ? g.value[i] : low;
    high = g.value[i] > high ? g.value[i] : high;
  }
  const Lanes peak = -low > high ? low : high;  // signed: it sits at code -8, so all sixteen levels are used
  Lanes best{}, best_error = Lanes{} + INFINITY;
  for (float divisor : {-7.f, -7.5f, -8.f, -8.6f, -9.3f, 7.2f, 0.f}) {
    const Lanes scale = rounded_to_half(divisor != 0 ? peak / divisor : least_squares(g, n, best));
    const Lanes error = error_of(g, n, scale);
    best = error < best_error ? scale : best;
    best_error = error < best_error ? error : best_error;
  }
  return best;
}

// Quantize columns [from, from + n) of `rows` <= 16 rows. Returns the squared error.
MIMO_INLINE double quantize_int4_groups(const float* weights, const float* importance, int rows, int cols, int from, int n, int8_t* codes,
                                        uint16_t* scales, int groups) {
  Groups g;
  float* cells = reinterpret_cast<float*>(g.value);
  for (int l = 0; l < kLanes; l++)
    for (int i = 0; i < n; i++) cells[i * kLanes + l] = l < rows ? weights[size_t(l) * cols + from + i] : 0.f;
  Lanes mean{};
  for (int i = 0; i < n; i++) mean += magnitude(g.value[i]) / float(n);
  for (int i = 0; i < n; i++) g.weight[i] = (mean + magnitude(g.value[i])) * (importance ? importance[from + i] : 1.f);
  const Lanes scale = choose_int4_scales(g, n), inverse = inverse_of(scale);
  Lanes error{};
  for (int i = 0; i < n; i++) {
    const Lanes q = clamp_lanes(nearest_lanes(g.value[i] * inverse)), d = g.value[i] - q * scale;
    g.value[i] = q;
    error += d * d;
  }
  double total = 0;
  for (int l = 0; l < rows; l++) {
    scales[size_t(l) * groups] = half_of(scale[l]);
    total += error[l];
    for (int i = 0; i < n; i++) codes[size_t(l) * cols + from + i] = int8_t(cells[i * kLanes + l]);
  }
  return total;
}

}  // namespace

uint16_t to_half(float v) { return half_of(v); }
float from_half(uint16_t h) { return float_of(h); }

MIMO_CLONES
double quantize_int4(const float* weights, const float* importance, int rows, int cols, int group, int8_t* codes, uint16_t* scales) {
  const int groups = (cols + group - 1) / group;
  const QuantizeTiles* tiles = avx512_tiles();
  double total = 0;
  for (int r = 0; r < rows; r += kLanes)
    for (int k = 0; k < groups; k++) {
      const int from = k * group, n = std::min(group, cols - from), lanes = std::min(kLanes, rows - r);
      const size_t at = size_t(r) * cols;
      uint16_t* out = scales + size_t(r) * groups + k;
      if (tiles && lanes == kLanes && n % 16 == 0)
        total += tiles->int4(weights + at + from, importance ? importance + from : nullptr, cols, n, codes + at + from, out, groups);
      else
        total += quantize_int4_groups(weights + at, importance, lanes, cols, from, n, codes + at, out, groups);
    }
  return total;
}

MIMO_CLONES
double quantize_int8(const float* weights, int rows, int cols, int8_t* codes, uint16_t* scales) {
  const int groups = (cols + 127) / 128;
  double total = 0;
  for (int r = 0; r < rows; r++)
    for (int k = 0; k < groups; k++) {
      const int from = k * 128, n = std::min(128, cols - from);
      const float* source = weights + size_t(r) * cols + from;
      float peak = 0;
      for (int i = 0; i < n; i++) peak = std::fabs(source[i]) > peak ? std::fabs(source[i]) : peak;
      const uint16_t half = half_of(peak / 127.f);
      const float scale = float_of(half), inverse = scale != 0 ? 1.f / scale : 0.f;
      scales[size_t(r) * groups + k] = half;
      int8_t* out = codes + size_t(r) * cols + from;
      float error = 0;
      for (int i = 0; i < n; i++) {
        const float q = clamp(nearest(source[i] * inverse), -127.f, 127.f), d = source[i] - q * scale;
        out[i] = int8_t(q);
        error += d * d;
      }
      total += error;
    }
  return total;
}

double quantize_mxfp4(const float* weights, int rows, int cols, uint8_t* codes, uint8_t* scales) {
  static const float level[8] = {0, .5f, 1, 1.5f, 2, 3, 4, 6};
  static const float border[7] = {.25f, .75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.f};  // ties go to the even code
  const int groups = (cols + 31) / 32;
  const QuantizeTiles* tiles = avx512_tiles();
  double total = 0;
  for (int r = 0; r < rows; r++)
    for (int k = 0; k < groups; k++) {
      const int from = k * 32, n = std::min(32, cols - from);
      if (tiles && n == 32) {
        const size_t at = size_t(r) * cols + from;
        total += tiles->mxfp4(weights + at, codes + at, scales + size_t(r) * groups + k);
        continue;
      }
      const float* source = weights + size_t(r) * cols + from;
      float peak = 0;
      for (int i = 0; i < n; i++) peak = std::fabs(source[i]) > peak ? std::fabs(source[i]) : peak;
      int exponent = 0;
      if (peak > 0) std::frexp(peak, &exponent);
      double best = INFINITY;
      uint8_t trial[32];
      for (int shift : {3, 2}) {  // peak at 4 to 8 (the top clips at 6), or at 2 to 4
        const int e = std::min(std::max(exponent - shift, -127), 127);
        const float scale = std::ldexp(1.f, e), inverse = std::ldexp(1.f, -e);
        double error = 0;
        for (int i = 0; i < n; i++) {
          const float m = std::fabs(source[i]) * inverse;
          int c = 0;
          for (int b = 0; b < 7; b++) c += b % 2 ? m >= border[b] : m > border[b];
          const double d = std::fabs(source[i]) - double(level[c]) * scale;
          error += d * d;
          trial[i] = uint8_t(c | (std::signbit(source[i]) ? 8 : 0));
        }
        if (error < best) {
          best = error;
          scales[size_t(r) * groups + k] = uint8_t(e + 127);
          std::memcpy(codes + size_t(r) * cols + from, trial, size_t(n));
        }
      }
      total += best;
    }
  return total;
}

MIMO_CLONES
void expand_fp8(const uint8_t* codes, const float* scales, const int32_t* row_block, int scale_cols, int rows, int cols, float* out) {
  for (int r = 0; r < rows; r++)
    for (int from = 0; from < cols; from += 128) {
      // The e4m3 bits, moved into a float's exponent and mantissa, are the value times 2^-120; subnormals included.
      const float scale = scales[size_t(row_block[r]) * scale_cols + from / 128];
      const int n = std::min(128, cols - from);
      const uint8_t* in = codes + size_t(r) * cols + from;
      float* to = out + size_t(r) * cols + from;
      for (int i = 0; i < n; i++) {
        uint32_t bits = uint32_t(in[i] & 0x7f) << 20;
        float v;
        std::memcpy(&v, &bits, 4);
        v *= 1.329227995784916e36f;  // 2^120
        if ((in[i] & 0x7f) == 0x7f) v = NAN;
        to[i] = (in[i] & 0x80 ? -v : v) * scale;
      }
    }
}

}  // namespace mimo
