// The search for scales with AVX-512, over whole tiles only: 16 rows of a group of int4, 32 columns of mxfp4. The same
// choices as the portable code in quantize.cpp, up to the rounding of error sums.
#include "quantize_tiles.hpp"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
#include <immintrin.h>

#include <cmath>
#include <initializer_list>

#include "cpu.hpp"

namespace mimo {
namespace {

constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

inline __m512 rounded_code(__m512 x) {  // to -8..7; clamping first is the same, the ends being integers
  x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-8.f)), _mm512_set1_ps(7.f));
  return _mm512_roundscale_ps(x, kNearest);
}

inline __m512 through_half(__m512 x) {  // rounded to float16, saturating: a scale must stay finite
  x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-65504.f)), _mm512_set1_ps(65504.f));
  return _mm512_cvtph_ps(_mm512_cvtps_ph(x, kNearest));
}

inline __m512 inverse_of(__m512 scale) {
  const __mmask16 nonzero = _mm512_cmp_ps_mask(scale, _mm512_setzero_ps(), _CMP_NEQ_OQ);
  return _mm512_maskz_div_ps(nonzero, _mm512_set1_ps(1.f), scale);
}

// 16 rows of 16 columns -> 16 columns of 16 rows.
inline void transpose(const float* in, size_t stride, __m512* out) {
  __m512 a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_ps(in + i * stride);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]), b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
    for (int k = 0; k < 2; k++) {
      const __m512d low = _mm512_castps_pd(b[i + k]), high = _mm512_castps_pd(b[i + 2 + k]);
      a[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));  // column 2 k of each four, rows i .. i + 3
      a[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    const __m512 even0 = _mm512_shuffle_f32x4(a[c], a[4 + c], 0x88), odd0 = _mm512_shuffle_f32x4(a[c], a[4 + c], 0xdd);
    const __m512 even1 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0x88), odd1 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0xdd);
    out[c] = _mm512_shuffle_f32x4(even0, even1, 0x88), out[8 + c] = _mm512_shuffle_f32x4(even0, even1, 0xdd);
    out[4 + c] = _mm512_shuffle_f32x4(odd0, odd1, 0x88), out[12 + c] = _mm512_shuffle_f32x4(odd0, odd1, 0xdd);
  }
}

// Weighted squared errors of N scales at once, so that each weight is loaded once for all of them.
template <int N>
inline void errors_of(const __m512* value, const __m512* weight, int n, const __m512* scale, __m512* error) {
  __m512 inverse[N], sum[N];
#pragma GCC unroll 8
  for (int k = 0; k < N; k++) inverse[k] = inverse_of(scale[k]), sum[k] = _mm512_setzero_ps();
  for (int i = 0; i < n; i++) {
    const __m512 v = value[i], w = weight[i];
#pragma GCC unroll 8
    for (int k = 0; k < N; k++) {
      const __m512 d = _mm512_fnmadd_ps(rounded_code(_mm512_mul_ps(v, inverse[k])), scale[k], v);
      sum[k] = _mm512_fmadd_ps(_mm512_mul_ps(w, d), d, sum[k]);
    }
  }
#pragma GCC unroll 8
  for (int k = 0; k < N; k++) error[k] = sum[k];
}

inline __m512 least_squares(const __m512* value, const __m512* weight, int n, __m512 scale) {
  const __m512 inverse = inverse_of(scale);
  __m512 top = _mm512_setzero_ps(), bottom = top;
  for (int i = 0; i < n; i++) {
    const __m512 q = rounded_code(_mm512_mul_ps(value[i], inverse)), wq = _mm512_mul_ps(weight[i], q);
    top = _mm512_fmadd_ps(wq, value[i], top), bottom = _mm512_fmadd_ps(wq, q, bottom);
  }
  return _mm512_mask_div_ps(scale, _mm512_cmp_ps_mask(bottom, _mm512_setzero_ps(), _CMP_GT_OQ), top, bottom);
}

inline __m512 choose_scales(const __m512* value, const __m512* weight, int n) {
  __m512 low = _mm512_setzero_ps(), high = low;
  for (int i = 0; i < n; i++) low = _mm512_min_ps(low, value[i]), high = _mm512_max_ps(high, value[i]);
  const __mmask16 negative = _mm512_cmp_ps_mask(_mm512_sub_ps(_mm512_setzero_ps(), low), high, _CMP_GT_OQ);
  const __m512 peak = _mm512_mask_blend_ps(negative, high, low);
  constexpr int kTries = 6;
  constexpr float kDivisors[kTries] = {-7.f, -7.5f, -8.f, -8.6f, -9.3f, 7.2f};  // as in quantize.cpp
  __m512 scale[kTries], error[kTries];
#pragma GCC unroll 6
  for (int k = 0; k < kTries; k++) scale[k] = through_half(_mm512_div_ps(peak, _mm512_set1_ps(kDivisors[k])));
  errors_of<kTries>(value, weight, n, scale, error);
  __m512 best = scale[0], best_error = error[0];
#pragma GCC unroll 6
  for (int k = 1; k < kTries; k++) {
    const __mmask16 better = _mm512_cmp_ps_mask(error[k], best_error, _CMP_LT_OQ);
    best = _mm512_mask_mov_ps(best, better, scale[k]), best_error = _mm512_min_ps(error[k], best_error);
  }
  const __m512 last = through_half(least_squares(value, weight, n, best));
  errors_of<1>(value, weight, n, &last, error);
  return _mm512_mask_mov_ps(best, _mm512_cmp_ps_mask(error[0], best_error, _CMP_LT_OQ), last);
}

double int4_tile(const float* weights, const float* importance, int cols, int n, int8_t* codes, uint16_t* scales, int groups) {
  __m512 value[128], weight[128], mean = _mm512_setzero_ps();
  for (int i = 0; i < n; i += 16) transpose(weights + i, size_t(cols), value + i);
  const __m512 share = _mm512_set1_ps(1.f / float(n));
  for (int i = 0; i < n; i++) mean = _mm512_fmadd_ps(_mm512_abs_ps(value[i]), share, mean);
  for (int i = 0; i < n; i++) {
    weight[i] = _mm512_add_ps(mean, _mm512_abs_ps(value[i]));
    if (importance) weight[i] = _mm512_mul_ps(weight[i], _mm512_set1_ps(importance[i]));
  }
  alignas(64) float scale[16], inverse[16];
  alignas(32) uint16_t half[16];
  const __m512 chosen = choose_scales(value, weight, n);
  _mm512_store_ps(scale, chosen);
  _mm512_store_ps(inverse, inverse_of(chosen));
  _mm256_store_si256(reinterpret_cast<__m256i*>(half), _mm512_cvtps_ph(chosen, kNearest));
  __m512 error = _mm512_setzero_ps();
  for (int r = 0; r < 16; r++) {  // row by row: codes come out in the order they are stored in
    scales[size_t(r) * groups] = half[r];
    for (int i = 0; i < n; i += 16) {
      const __m512 v = _mm512_loadu_ps(weights + size_t(r) * cols + i);
      const __m512 q = rounded_code(_mm512_mul_ps(v, _mm512_set1_ps(inverse[r])));
      const __m512 d = _mm512_fnmadd_ps(q, _mm512_set1_ps(scale[r]), v);
      error = _mm512_fmadd_ps(d, d, error);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + size_t(r) * cols + i), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(q)));
    }
  }
  return _mm512_reduce_add_ps(error);
}

// Magnitudes rounded to 0, 0.5 .. 2 by halves, 2 .. 4 by ones, 4 and 6; ties to the even code.
inline __m512 rounded_e2m1(__m512 m) {
  const __m512 halves = _mm512_roundscale_ps(m, 0x10), ones = _mm512_roundscale_ps(m, 0);
  const __m512 half = _mm512_mul_ps(m, _mm512_set1_ps(.5f)), twos = _mm512_roundscale_ps(half, 0);
  __m512 r = _mm512_mask_mov_ps(halves, _mm512_cmp_ps_mask(m, _mm512_set1_ps(2.f), _CMP_GE_OQ), ones);
  r = _mm512_mask_add_ps(r, _mm512_cmp_ps_mask(m, _mm512_set1_ps(4.f), _CMP_GE_OQ), twos, twos);
  return _mm512_min_ps(r, _mm512_set1_ps(6.f));
}

double mxfp4_group(const float* weights, uint8_t* codes, uint8_t* scale) {
  const __m512 v[2] = {_mm512_loadu_ps(weights), _mm512_loadu_ps(weights + 16)};
  const __m512 a[2] = {_mm512_abs_ps(v[0]), _mm512_abs_ps(v[1])};
  const float peak = _mm512_reduce_max_ps(_mm512_max_ps(a[0], a[1]));
  int exponent = 0;
  if (peak > 0) exponent = int(_mm_cvtss_f32(_mm_getexp_ss(_mm_setzero_ps(), _mm_set_ss(peak)))) + 1;
  float best = INFINITY;
  __m512 best_code[2] = {};
  for (int shift : {3, 2}) {  // peak at 4 to 8 (the top clips at 6), or at 2 to 4
    const int e = exponent - shift < -127 ? -127 : exponent - shift > 127 ? 127 : exponent - shift;
    const __m512 power = _mm512_set1_ps(float(e)), one = _mm512_set1_ps(1.f);
    const __m512 s = _mm512_scalef_ps(one, power), inverse = _mm512_scalef_ps(one, _mm512_sub_ps(_mm512_setzero_ps(), power));
    const __m512 r0 = rounded_e2m1(_mm512_mul_ps(a[0], inverse)), r1 = rounded_e2m1(_mm512_mul_ps(a[1], inverse));
    const __m512 d0 = _mm512_fnmadd_ps(r0, s, a[0]), d1 = _mm512_fnmadd_ps(r1, s, a[1]);
    const float error = _mm512_reduce_add_ps(_mm512_fmadd_ps(d0, d0, _mm512_mul_ps(d1, d1)));
    if (error < best) best = error, best_code[0] = r0, best_code[1] = r1, *scale = uint8_t(e + 127);
  }
  const __m512i code_of = _mm512_setr_epi32(0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7);  // of twice the magnitude
  for (int k = 0; k < 2; k++) {
    const __m512i doubled = _mm512_cvtps_epi32(_mm512_add_ps(best_code[k], best_code[k]));
    const __m512i sign = _mm512_slli_epi32(_mm512_srli_epi32(_mm512_castps_si512(v[k]), 31), 3);
    const __m512i code = _mm512_or_si512(_mm512_permutexvar_epi32(doubled, code_of), sign);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + 16 * k), _mm512_cvtepi32_epi8(code));
  }
  return best;
}

const QuantizeTiles kTiles = {int4_tile, mxfp4_group};

}  // namespace

const QuantizeTiles* avx512_tiles() { return cpu_has_avx512() ? &kTiles : nullptr; }

}  // namespace mimo

#else
namespace mimo {
const QuantizeTiles* avx512_tiles() { return nullptr; }
}  // namespace mimo
#endif
