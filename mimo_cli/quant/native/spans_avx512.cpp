// Whole spans with AVX-512: bytes are turned four at a time so that a lane of a register holds four columns of one row.
//
// The search for int4 scales is done in integers. Weights are divided by the group's largest magnitude, which becomes
// 4096; a multiplication that keeps the upper half then gives the codes of a trial scale, two columns per lane, and two dot
// products the sums for its least-squares scale: s = sum(w v q) / sum(w q q), which lowers the error by
// sum(w v q)^2 / sum(w q q). The trial that lowers it most wins. Codes are rounded from the weights themselves.
#include "spans.hpp"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VNNI__)
#include <immintrin.h>

#include "cpu.hpp"

namespace mimo {
namespace {

constexpr int kRows = 16, kSpan = 128;
constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

// 16 rows of 16 dwords -> 16 dwords of 16 rows.
inline void transpose(__m512i* a) {
  __m512i b[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]), b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
    for (int k = 0; k < 2; k++) {
      a[i + 2 * k] = _mm512_unpacklo_epi64(b[i + k], b[i + 2 + k]);  // dword 2 k of each four, rows i .. i + 3
      a[i + 2 * k + 1] = _mm512_unpackhi_epi64(b[i + k], b[i + 2 + k]);
    }
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    const __m512i even0 = _mm512_shuffle_i32x4(a[c], a[4 + c], 0x88), odd0 = _mm512_shuffle_i32x4(a[c], a[4 + c], 0xdd);
    const __m512i even1 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0x88), odd1 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0xdd);
    b[c] = _mm512_shuffle_i32x4(even0, even1, 0x88), b[8 + c] = _mm512_shuffle_i32x4(even0, even1, 0xdd);
    b[4 + c] = _mm512_shuffle_i32x4(odd0, odd1, 0x88), b[12 + c] = _mm512_shuffle_i32x4(odd0, odd1, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) a[i] = b[i];
}

inline void load_turned(const void* in, size_t stride_bytes, __m512i* out) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; r++) out[r] = _mm512_loadu_si512(static_cast<const uint8_t*>(in) + r * stride_bytes);
  transpose(out);
}

template <class Arrange>
inline void move_bytes(const uint8_t* in, size_t stride, uint8_t* out, Arrange arrange) {
  for (int half = 0; half < 2; half++) {
    __m512i line[16];
    load_turned(in + 64 * half, stride, line);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) _mm512_storeu_si512(out + (16 * half + i) * 64, arrange(line[i]));
  }
}

void fp8_span(const uint8_t* in, size_t stride, uint8_t* out) {
  // of four rows: columns 0, 1 of each, then columns 2, 3
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
  move_bytes(in, stride, out, [&](__m512i line) { return _mm512_shuffle_epi8(line, order); });
}

void int8_span(const uint8_t* in, size_t stride, uint8_t* out) {
  const __m512i offset = _mm512_set1_epi8(-128);  // value + 128
  move_bytes(in, stride, out, [&](__m512i line) { return _mm512_xor_si512(line, offset); });
}

void code_span(const uint8_t* in, size_t stride, int flip, uint8_t* out) {
  const __m512i offset = _mm512_set1_epi8(char(flip)), mask = _mm512_set1_epi8(15);
  for (int half = 0; half < 2; half++) {
    __m512i line[16];
    load_turned(in + 64 * half, stride, line);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {  // columns 0 to 3 of eight in the low halves, 4 to 7 in the high ones
      const __m512i low = _mm512_and_si512(_mm512_add_epi8(line[2 * i], offset), mask);
      const __m512i high = _mm512_and_si512(_mm512_add_epi8(line[2 * i + 1], offset), mask);
      _mm512_storeu_si512(out + (8 * half + i) * 64, _mm512_or_si512(low, _mm512_slli_epi32(high, 4)));
    }
  }
}

inline __m512i one_per_byte(__m512i nibbles) {  // 16 bits of four nibbles -> four bytes
  __m512i x = _mm512_and_si512(_mm512_or_si512(nibbles, _mm512_slli_epi32(nibbles, 8)), _mm512_set1_epi32(0x00ff00ff));
  return _mm512_and_si512(_mm512_or_si512(x, _mm512_slli_epi32(x, 4)), _mm512_set1_epi32(0x0f0f0f0f));
}

void nibble_span(const uint8_t* in, size_t stride, uint8_t* out) {
  __m512i line[16];
  load_turned(in, stride, line);  // a lane: eight columns, column 2 k in the low half of byte k
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) {
    const __m512i low = one_per_byte(_mm512_and_si512(line[i], _mm512_set1_epi32(0xffff))), high = one_per_byte(_mm512_srli_epi32(line[i], 16));
    _mm512_storeu_si512(out + i * 64, _mm512_or_si512(low, _mm512_slli_epi32(high, 4)));
  }
}

// Trial scales: minus the largest magnitude over these, in eighths. Its sign makes -8 and beyond use all sixteen levels.
constexpr int kTrials = 5;
constexpr int16_t kTrial[kTrials] = {-60, -64, -69, -74, 58};
constexpr float kUnit = 4096.f;

// One group of 16 rows: weights v[i] (column i, a row per lane) over a common positive factor per row, scaled so that
// unit[r] = 4096 / the largest magnitude, signed. Returns the least-squares scale of the best trial, in units of v.
inline __m512 choose_scale(const __m512* v, int n, __m512 unit) {
  __m512i x[kSpan / 2], sum = _mm512_setzero_si512();
  const __m512i ones = _mm512_set1_epi16(1);
  for (int i = 0; i < n / 2; i++) {
    const __m512i even = _mm512_cvtps_epi32(_mm512_mul_ps(v[2 * i], unit)), odd = _mm512_cvtps_epi32(_mm512_mul_ps(v[2 * i + 1], unit));
    x[i] = _mm512_mask_blend_epi16(0xaaaaaaaa, even, _mm512_slli_epi32(odd, 16));
    sum = _mm512_dpwssd_epi32(sum, _mm512_abs_epi16(x[i]), ones);
  }
  const __m512i mean32 = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(1.f / float(n))));
  const __m512i mean = _mm512_or_si512(mean32, _mm512_slli_epi32(mean32, 16));
  __m512i top[kTrials], bottom[kTrials];
#pragma GCC unroll 8
  for (int k = 0; k < kTrials; k++) top[k] = bottom[k] = _mm512_setzero_si512();
  for (int i = 0; i < n / 2; i++) {
    // A weight counts the more the larger it is: |v| plus the mean, in 8 bits, so that 32-bit sums of 128 columns hold.
    const __m512i w = _mm512_srli_epi16(_mm512_add_epi16(_mm512_abs_epi16(x[i]), mean), 5);
#pragma GCC unroll 8
    for (int k = 0; k < kTrials; k++) {
      __m512i q = _mm512_mulhrs_epi16(x[i], _mm512_set1_epi16(kTrial[k]));
      if (kTrial[k] < -64) q = _mm512_max_epi16(q, _mm512_set1_epi16(-8));
      if (kTrial[k] < 0) q = _mm512_min_epi16(q, _mm512_set1_epi16(7));
      const __m512i wq = _mm512_mullo_epi16(w, q);
      top[k] = _mm512_dpwssd_epi32(top[k], wq, x[i]);
      bottom[k] = _mm512_dpwssd_epi32(bottom[k], wq, q);
    }
  }
  __m512 scale = _mm512_setzero_ps(), gain = _mm512_setzero_ps();
#pragma GCC unroll 8
  for (int k = 0; k < kTrials; k++) {
    const __m512 t = _mm512_cvtepi32_ps(top[k]), b = _mm512_max_ps(_mm512_cvtepi32_ps(bottom[k]), _mm512_set1_ps(1.f));
    const __m512 s = _mm512_div_ps(t, b), g = _mm512_mul_ps(t, s);
    const __mmask16 better = _mm512_cmp_ps_mask(g, gain, _CMP_GT_OQ);
    scale = _mm512_mask_mov_ps(scale, better, s), gain = _mm512_mask_mov_ps(gain, better, g);
  }
  const __mmask16 nonzero = _mm512_cmp_ps_mask(unit, _mm512_setzero_ps(), _CMP_NEQ_OQ);
  return _mm512_maskz_div_ps(nonzero, scale, unit);  // top / bottom is in units of 4096 per largest magnitude
}

inline __m512 inverse_of(__m512 scale) {
  const __mmask16 nonzero = _mm512_cmp_ps_mask(scale, _mm512_setzero_ps(), _CMP_NEQ_OQ);
  return _mm512_maskz_div_ps(nonzero, _mm512_set1_ps(1.f), scale);
}

// Codes of one group, eight columns to a line. scale: of v, as stored. Adds squared errors and weights, in units of v.
inline void write_codes(const __m512* v, int n, __m512 scale, uint8_t* out, __m512* error, __m512* weights) {
  const __m512 inverse = inverse_of(scale);
  for (int line = 0; line < n / 8; line++) {
    __m512i q[8];
#pragma GCC unroll 8
    for (int c = 0; c < 8; c++) {
      const __m512 value = v[8 * line + c];
      __m512 code = _mm512_min_ps(_mm512_max_ps(_mm512_mul_ps(value, inverse), _mm512_set1_ps(-8.f)), _mm512_set1_ps(7.f));
      code = _mm512_roundscale_ps(code, kNearest);
      const __m512 d = _mm512_fnmadd_ps(code, scale, value);
      *error = _mm512_fmadd_ps(d, d, *error), *weights = _mm512_fmadd_ps(value, value, *weights);
      q[c] = _mm512_cvtps_epi32(code);
    }
    // byte c: column c in the low half, column 4 + c in the high one, each + 8
    __m512i lane = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int c = 3; c >= 0; c--) {
      lane = _mm512_add_epi32(_mm512_slli_epi32(lane, 4), q[4 + c]);
      lane = _mm512_add_epi32(_mm512_slli_epi32(lane, 4), q[c]);
    }
    _mm512_storeu_si512(out + 64 * line, _mm512_add_epi32(lane, _mm512_set1_epi32(int(0x88888888u))));
  }
}

inline __m512 through_half(__m512 x, uint8_t* out) {  // rounded to float16, saturating: a scale must stay finite
  x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-65504.f)), _mm512_set1_ps(65504.f));
  const __m256i half = _mm512_cvtps_ph(x, kNearest);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), half);
  return _mm512_cvtph_ps(half);
}

// The groups of a span: v[128] in units of factor[r] per row.
inline void encode_int4(const __m512* v, __m512 factor, int group, uint8_t* out, uint8_t* scales, Loss* loss) {
  __m512 error = _mm512_setzero_ps(), weights = error;
  const __m512 per_factor = inverse_of(factor);
  for (int from = 0; from < kSpan; from += group) {
    __m512 low = _mm512_setzero_ps(), high = low;
    for (int i = from; i < from + group; i++) low = _mm512_min_ps(low, v[i]), high = _mm512_max_ps(high, v[i]);
    const __mmask16 negative = _mm512_cmp_ps_mask(_mm512_sub_ps(_mm512_setzero_ps(), low), high, _CMP_GT_OQ);
    const __m512 peak = _mm512_mask_blend_ps(negative, high, low);
    // Nothing that float16 can scale is as small as this, and 4096 over it must be finite.
    const __mmask16 sound = _mm512_cmp_ps_mask(_mm512_abs_ps(peak), _mm512_set1_ps(1e-30f), _CMP_GT_OQ);
    const __m512 unit = _mm512_maskz_div_ps(sound, _mm512_set1_ps(kUnit), peak);
    const __m512 scale = through_half(_mm512_mul_ps(choose_scale(v + from, group, unit), factor), scales + from / group * kRows * 2);
    write_codes(v + from, group, _mm512_mul_ps(scale, per_factor), out + from / 8 * 64, &error, &weights);
  }
  const __m512 square = _mm512_mul_ps(factor, factor);
  loss->error += double(_mm512_reduce_add_ps(_mm512_mul_ps(error, square)));
  loss->weights += double(_mm512_reduce_add_ps(_mm512_mul_ps(weights, square)));
}

// Magnitudes below 8 rounded to 0, 0.5 .. 2 by halves, 2 .. 4 by ones, 4 .. 8 by twos; ties to the even code. What is added
// has the step as its last bit.
inline __m512 rounded_e2m1(__m512 m) {
  const __m512i power = _mm512_and_si512(_mm512_castps_si512(_mm512_max_ps(m, _mm512_set1_ps(1.f))), _mm512_set1_epi32(0x7f800000));
  const __m512 large = _mm512_castsi512_ps(_mm512_add_epi32(power, _mm512_set1_epi32(22 << 23)));
  return _mm512_sub_ps(_mm512_add_ps(m, large), large);
}

// The groups of a span: weights w[128], a row per lane. Of two exponents, which bring the largest magnitude to 4 .. 8 (the top
// clips at 6) or to 2 .. 4, the one with the smaller squared error.
inline void encode_mxfp4(const __m512* w, uint8_t* out, uint8_t* scales, Loss* loss) {
  const __m512 six = _mm512_set1_ps(6.f), half = _mm512_set1_ps(.5f);
  const __m512i code_of = _mm512_setr_epi32(0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7);  // of twice the magnitude
  __m512 lost = _mm512_setzero_ps(), weights = lost;
  for (int group = 0; group < kSpan / 32; group++, w += 32) {
    __m512 peak = _mm512_setzero_ps();
    for (int i = 0; i < 32; i++) peak = _mm512_max_ps(peak, _mm512_abs_ps(w[i]));
    // frexp's exponent less 3; 0 has the exponent 0
    const __mmask16 nonzero = _mm512_cmp_ps_mask(peak, _mm512_setzero_ps(), _CMP_GT_OQ);
    const __m512 exponent = _mm512_maskz_add_ps(nonzero, _mm512_getexp_ps(peak), _mm512_set1_ps(1.f));
    const __m512 low = _mm512_set1_ps(-127.f), high = _mm512_set1_ps(127.f), one = _mm512_set1_ps(1.f);
    const __m512 first = _mm512_min_ps(_mm512_max_ps(_mm512_sub_ps(exponent, _mm512_set1_ps(3.f)), low), high);
    const __m512 second = _mm512_min_ps(_mm512_max_ps(_mm512_sub_ps(exponent, _mm512_set1_ps(2.f)), low), high);
    const __m512 down = _mm512_scalef_ps(one, _mm512_sub_ps(_mm512_setzero_ps(), first));
    const __m512 halved = _mm512_scalef_ps(one, _mm512_sub_ps(first, second));  // 1/2, or 1 where both met a bound
    __m512 error[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()}, squares = _mm512_setzero_ps();
    for (int i = 0; i < 32; i++) {
      const __m512 m = _mm512_mul_ps(_mm512_abs_ps(w[i]), down), n = _mm512_mul_ps(m, halved);
      const __m512 d = _mm512_sub_ps(m, _mm512_min_ps(rounded_e2m1(m), six)), f = _mm512_sub_ps(n, rounded_e2m1(n));
      error[0] = _mm512_fmadd_ps(d, d, error[0]), error[1] = _mm512_fmadd_ps(f, f, error[1]);
      squares = _mm512_fmadd_ps(w[i], w[i], squares);
    }
    // Errors are in units of each scale, the second of which is 1 / halved times the first.
    const __m512 unit = _mm512_div_ps(one, _mm512_mul_ps(halved, halved)), other = _mm512_mul_ps(error[1], unit);
    const __mmask16 better = _mm512_cmp_ps_mask(other, error[0], _CMP_LT_OQ);
    const __m512 chosen = _mm512_mask_mov_ps(first, better, second), by = _mm512_mask_mul_ps(down, better, down, halved);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(scales + group * kRows),
                     _mm512_cvtepi32_epi8(_mm512_add_epi32(_mm512_cvtps_epi32(chosen), _mm512_set1_epi32(127))));
    const __m512 scale = _mm512_scalef_ps(one, first);
    lost = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_mask_mov_ps(error[0], better, other), scale), scale, lost);
    weights = _mm512_add_ps(weights, squares);
    for (int line = 0; line < 4; line++, out += 64) {
      __m512i lane = _mm512_setzero_si512();
#pragma GCC unroll 8
      for (int c = 0; c < 8; c++) {
        const __m512 x = w[8 * line + c], r = _mm512_min_ps(rounded_e2m1(_mm512_mul_ps(_mm512_abs_ps(x), by)), six);
        const __m512i code = _mm512_permutexvar_epi32(_mm512_cvtps_epi32(_mm512_add_ps(r, r)), code_of);
        const __m512i sign = _mm512_and_si512(_mm512_srli_epi32(_mm512_castps_si512(x), 28), _mm512_set1_epi32(8));
        const __m512i nibble = _mm512_or_si512(code, sign);
        lane = _mm512_or_si512(lane, _mm512_slli_epi32(nibble, c < 4 ? 8 * c : 8 * c - 28));  // column 4 + k above column k
      }
      _mm512_storeu_si512(out, lane);
    }
  }
  loss->error += double(_mm512_reduce_add_ps(lost));
  loss->weights += double(_mm512_reduce_add_ps(weights));
}

// Columns of 16 rows of e4m3 codes times factor[r]. False where one is not a number.
inline bool columns_of_fp8(const uint8_t* in, size_t stride, __m512 factor, __m512* v) {
  const __m512i magnitude = _mm512_set1_epi8(0x7f);
  __mmask64 nan = 0;
  for (int half = 0; half < 2; half++) {
    __m512i line[16];
    load_turned(in + 64 * half, stride, line);
#pragma GCC unroll 4
    for (int i = 0; i < 16; i++) {
      nan |= _mm512_cmpeq_epi8_mask(_mm512_and_si512(line[i], magnitude), magnitude);
      // The e4m3 bits, moved into a float's sign, exponent and mantissa, are the value times 2^-120; subnormals included.
      const __m512i top[4] = {_mm512_slli_epi32(line[i], 24), _mm512_slli_epi32(line[i], 16), _mm512_slli_epi32(line[i], 8), line[i]};
#pragma GCC unroll 4
      for (int c = 0; c < 4; c++) {
        const __m512i bits = _mm512_and_si512(_mm512_srai_epi32(top[c], 4), _mm512_set1_epi32(int(0x87f00000u)));
        v[64 * half + 4 * i + c] = _mm512_mul_ps(_mm512_castsi512_ps(bits), factor);
      }
    }
  }
  return !nan;
}

// Columns of 16 rows of floats. False where one is infinite or not a number.
inline bool columns_of_floats(const float* in, size_t stride, __m512* v) {
  __m512 sum = _mm512_setzero_ps();
  for (int from = 0; from < kSpan; from += 16) {
    __m512i line[16];
    load_turned(in + from, stride * sizeof(float), line);
    for (int i = 0; i < 16; i++) v[from + i] = _mm512_castsi512_ps(line[i]), sum = _mm512_fmadd_ps(v[from + i], v[from + i], sum);
  }
  return _mm512_reduce_add_ps(sum) < __builtin_inff();
}

constexpr float kE4m3Unit = 1.329227995784916e36f;  // 2^120

bool int4_of_fp8(const uint8_t* in, size_t stride, const float* scale, int group, uint8_t* out, uint8_t* scales, Loss* loss) {
  __m512 v[kSpan];
  const bool sound = columns_of_fp8(in, stride, _mm512_set1_ps(kE4m3Unit), v);
  encode_int4(v, _mm512_loadu_ps(scale), group, out, scales, loss);
  return sound;
}

bool int4_of_floats(const float* in, size_t stride, int group, uint8_t* out, uint8_t* scales, Loss* loss) {
  __m512 v[kSpan];
  const bool sound = columns_of_floats(in, stride, v);
  encode_int4(v, _mm512_set1_ps(1.f), group, out, scales, loss);
  return sound;
}

bool mxfp4_of_fp8(const uint8_t* in, size_t stride, const float* scale, int, uint8_t* out, uint8_t* scales, Loss* loss) {
  __m512 v[kSpan];
  const bool sound = columns_of_fp8(in, stride, _mm512_set1_ps(kE4m3Unit), v);
  const __m512 factor = _mm512_loadu_ps(scale);
  for (int i = 0; i < kSpan; i++) v[i] = _mm512_mul_ps(v[i], factor);  // rounded as the weight itself is
  encode_mxfp4(v, out, scales, loss);
  return sound;
}

bool mxfp4_of_floats(const float* in, size_t stride, int, uint8_t* out, uint8_t* scales, Loss* loss) {
  __m512 v[kSpan];
  const bool sound = columns_of_floats(in, stride, v);
  encode_mxfp4(v, out, scales, loss);
  return sound;
}

const SpanTiles kSpans = {fp8_span, int8_span, code_span, nibble_span, int4_of_fp8, int4_of_floats, mxfp4_of_fp8, mxfp4_of_floats};

}  // namespace

const SpanTiles* avx512_spans() { return cpu_has_avx512() ? &kSpans : nullptr; }

}  // namespace mimo

#else
namespace mimo {
const SpanTiles* avx512_spans() { return nullptr; }
}  // namespace mimo
#endif
