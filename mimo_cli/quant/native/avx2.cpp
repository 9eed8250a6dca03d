// AVX2 kernels (with FMA and F16C): Haswell, Zen and later. The same storage as avx512.cpp, 8 rows per register.
//
// Integer formats add exactly what the AVX-512 kernels add, in the same order. Float formats multiply in float32.
#include "isa.hpp"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu.hpp"

namespace mimo {
namespace {

constexpr int kHalfRows = 8, kLineBytes = 64, kHalfBytes = 32;
constexpr size_t kPrefetchBytes = 2048;

inline __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void prefetch(const uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p + kPrefetchBytes), _MM_HINT_T0); }
inline __m256i broadcast4(const int8_t* p) {
  int32_t v;
  std::memcpy(&v, p, 4);
  return _mm256_set1_epi32(v);
}
inline __m256 half_scales(const uint8_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }

template <int G>
struct Int4Codec {
  static constexpr int kGroup = G, kScaleBytes = 32;
  static constexpr bool kNibbles = true, kWide = false;
  __m256i mask = _mm256_set1_epi8(15);
  __m256i low(__m256i b) const { return _mm256_and_si256(b, mask); }
  __m256i high(__m256i b) const { return _mm256_and_si256(_mm256_srli_epi16(b, 4), mask); }
  static __m256 scales(const uint8_t* p, int half) { return half_scales(p + half * 16); }
};

struct Mxfp4Codec {
  static constexpr int kGroup = 32, kScaleBytes = 16;
  static constexpr bool kNibbles = true, kWide = true;  // scales reach the end of float32's range: that of the activations comes first
  __m256i mask = _mm256_set1_epi8(15);
  __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
  __m256i low(__m256i b) const { return _mm256_shuffle_epi8(table, _mm256_and_si256(b, mask)); }
  __m256i high(__m256i b) const { return _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(b, 4), mask)); }
  static __m256 scales(const uint8_t* p, int half) {  // 2^(byte - 128): halves of exponents, so that subnormals are reached
    const __m256i e = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + half * 8)));
    const __m256i a = _mm256_srli_epi32(e, 1), b = _mm256_sub_epi32(e, a);  // a + b = byte
    const __m256 x = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(a, _mm256_set1_epi32(63)), 23));  // 2^(a - 64)
    const __m256 y = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(b, _mm256_set1_epi32(63)), 23));
    return _mm256_mul_ps(x, y);
  }
};

struct Int8Codec {
  static constexpr int kGroup = 128, kScaleBytes = 32;
  static constexpr bool kNibbles = false, kWide = false;
  static __m256 scales(const uint8_t* p, int half) { return half_scales(p + half * 16); }
};

// Four products of each row added to `sum`. Codes of 8 bits and activations both have a sign: it moves to the codes.
inline __m256i dot_signed(__m256i sum, __m256i code, __m256i x) {
  const __m256i w = _mm256_sign_epi8(_mm256_xor_si256(code, _mm256_set1_epi8(char(0x80))), x);
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), w);  // at most 2 * 128 * 127
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

template <class C, int M, int P>
void integer_half(const Matrix& w, const uint8_t* stream, const Activations& act, const int32_t* source, int half, __m256 (*acc)[2]) {
  constexpr int kGroups = kSpanCols / C::kGroup, kLineCols = C::kNibbles ? 8 : 4, kLines = C::kGroup / kLineCols;
  const C codec;
  const __m256i ones = _mm256_set1_epi16(1);
  const size_t code_bytes = w.code_bytes(), scale_bytes = w.scale_bytes();
  for (int m = 0; m < M; m++) acc[m][0] = acc[m][1] = _mm256_setzero_ps();
  for (int s = 0; s < w.spans(); s++, stream += w.span_bytes())
    for (int j = 0; j < w.streams; j++) {
      const uint8_t* codes = stream + j * code_bytes + half * kHalfBytes;
      const uint8_t* scales = stream + w.streams * code_bytes + j * scale_bytes;
      __m256 span_acc[M];
      for (int m = 0; m < M; m++) span_acc[m] = _mm256_setzero_ps();
      for (int g = 0; g < kGroups; g++) {
        __m256i dot[M][P];
#pragma GCC unroll 4
        for (int m = 0; m < M; m++)
#pragma GCC unroll 3
          for (int p = 0; p < P; p++) dot[m][p] = _mm256_set1_epi32(act.sum(p, source[m], s)[g]);
        const int column = g * C::kGroup;
        for (int i = 0; i < kLines; i++, codes += kLineBytes) {
          const __m256i b = load(codes);
          prefetch(codes);
          __m256i lo = b, hi = b;
          if constexpr (C::kNibbles) lo = codec.low(b), hi = codec.high(b);
#pragma GCC unroll 4
          for (int m = 0; m < M; m++)
#pragma GCC unroll 3
            for (int p = 0; p < P; p++) {
              const int8_t* x = act.code(p, source[m], s) + column + i * kLineCols;
              if constexpr (C::kNibbles) {
                const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(lo, broadcast4(x)), _mm256_maddubs_epi16(hi, broadcast4(x + 4)));
                dot[m][p] = _mm256_add_epi32(dot[m][p], _mm256_madd_epi16(pairs, ones));
              } else {
                dot[m][p] = dot_signed(dot[m][p], b, broadcast4(x));
              }
            }
        }
        const __m256 ws = C::scales(scales + g * C::kScaleBytes, half);
        for (int m = 0; m < M; m++) {
          __m256i d = dot[m][0];
          if constexpr (P == 2) d = _mm256_add_epi32(_mm256_slli_epi32(d, 8), dot[m][1]);
          __m256 value = _mm256_cvtepi32_ps(d);
          if constexpr (P == 3) {  // 65536 high leaves int32: the high plane joins in float32
            const __m256i rest = _mm256_add_epi32(_mm256_slli_epi32(dot[m][1], 8), dot[m][2]);
            value = _mm256_fmadd_ps(value, _mm256_set1_ps(65536.f), _mm256_cvtepi32_ps(rest));
          }
          if constexpr (C::kWide) value = _mm256_mul_ps(value, _mm256_set1_ps(act.scale(source[m], s)));
          span_acc[m] = _mm256_fmadd_ps(value, ws, span_acc[m]);
        }
      }
      for (int m = 0; m < M; m++) {
        if constexpr (C::kWide) acc[m][j] = _mm256_add_ps(acc[m][j], span_acc[m]);
        else acc[m][j] = _mm256_fmadd_ps(span_acc[m], _mm256_set1_ps(act.scale(source[m], s)), acc[m][j]);
      }
    }
}

// ---- float formats ----

struct Fp8Codec {
  static constexpr int kColumns = 4;  // of a line
  __m256i pick[4];
  Fp8Codec() {  // column k of four rows into the top byte of each 32 bits
    for (int k = 0; k < 4; k++) {
      alignas(16) int8_t bytes[16];
      for (int r = 0; r < 4; r++)
        for (int b = 0; b < 4; b++) bytes[r * 4 + b] = int8_t(b == 3 ? k / 2 * 8 + r * 2 + k % 2 : -128);
      pick[k] = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes)));
    }
  }
  __m256 column(__m256i line, int k) const {
    const __m256i top = _mm256_shuffle_epi8(line, pick[k]);
    const __m256i sign = _mm256_and_si256(top, _mm256_set1_epi32(int(0x80000000)));
    const __m256i magnitude = _mm256_srli_epi32(_mm256_andnot_si256(sign, top), 4);
    const __m256 value = _mm256_mul_ps(_mm256_castsi256_ps(_mm256_or_si256(sign, magnitude)), _mm256_set1_ps(1.329227995784916e36f));  // 2^120
    const __m256i nan = _mm256_cmpeq_epi32(magnitude, _mm256_set1_epi32(0x07f00000));
    return _mm256_or_ps(value, _mm256_castsi256_ps(nan));  // all bits set is a NaN
  }
};

struct Bf16Codec {
  static constexpr int kColumns = 2;
  __m256 column(__m256i line, int k) const {
    return _mm256_castsi256_ps(k ? _mm256_and_si256(line, _mm256_set1_epi32(int(0xffff0000))) : _mm256_slli_epi32(line, 16));
  }
};

template <class C, int M>
void float_half(const Matrix& w, const uint8_t* stream, const Activations& act, const int32_t* source, int half, __m256 (*acc)[2]) {
  const C codec;
  const int spans = w.spans();
  const size_t code_bytes = w.code_bytes();
  const uint8_t* block_scales = stream;
  stream += w.head_bytes();
  for (int m = 0; m < M; m++) acc[m][0] = acc[m][1] = _mm256_setzero_ps();
  for (int s = 0; s < spans; s++, stream += w.span_bytes())
    for (int j = 0; j < w.streams; j++) {
      const uint8_t* codes = stream + j * code_bytes + half * kHalfBytes;
      __m256 part[M][2];
      for (int m = 0; m < M; m++) part[m][0] = part[m][1] = _mm256_setzero_ps();
      for (int k = 0; k < kSpanCols; k += C::kColumns, codes += kLineBytes) {
        const __m256i line = load(codes);
        prefetch(codes);
#pragma GCC unroll 4
        for (int c = 0; c < C::kColumns; c++) {
          const __m256 v = codec.column(line, c);
          for (int m = 0; m < M; m++)
            part[m][c & 1] = _mm256_fmadd_ps(v, _mm256_set1_ps(act.value(source[m])[s * kSpanCols + k + c]), part[m][c & 1]);
        }
      }
      float block_scale = 1.f;
      if (w.format == Format::fp8) std::memcpy(&block_scale, block_scales + (size_t(j) * spans + s) * 4, 4);
      for (int m = 0; m < M; m++) acc[m][j] = _mm256_fmadd_ps(_mm256_add_ps(part[m][0], part[m][1]), _mm256_set1_ps(block_scale), acc[m][j]);
    }
}

// ---- epilogues ----

inline __m256 exp_ps(__m256 x) {  // relative error below 2e-7
  x = _mm256_max_ps(_mm256_min_ps(x, _mm256_set1_ps(88.37f)), _mm256_set1_ps(-87.33f));
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.442695041f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
  __m256 p = _mm256_set1_ps(1.9875691500e-4f);
  for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(c));
  p = _mm256_fmadd_ps(_mm256_mul_ps(r, r), p, _mm256_add_ps(r, _mm256_set1_ps(1.f)));
  const __m256i e = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(p, _mm256_castsi256_ps(e));
}

using Floats = __m256;  // for attend_chunk.hpp
constexpr int kLanes = 8;
inline Floats load_floats(const float* p) { return _mm256_loadu_ps(p); }
inline void store_floats(float* p, Floats v) { _mm256_storeu_ps(p, v); }
inline Floats load_bfloat16(const uint16_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
}
inline Floats spread(float v) { return _mm256_set1_ps(v); }
inline Floats max_floats(Floats a, Floats b) { return _mm256_max_ps(a, b); }
inline float max_lanes(Floats v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
inline float sum_lanes(Floats v) {
  __m128 m = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_add_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_add_ss(m, _mm_movehdup_ps(m)));
}

inline __m256 silu(__m256 x) {
  const __m256 e = exp_ps(_mm256_sub_ps(_mm256_setzero_ps(), x));
  return _mm256_div_ps(x, _mm256_add_ps(e, _mm256_set1_ps(1.f)));
}
inline __m256 swiglu(__m256 gate, __m256 up) { return _mm256_mul_ps(silu(gate), up); }

void silu_all(float* x, size_t count) {
  for (; count >= kLanes; x += kLanes, count -= kLanes) store_floats(x, silu(load_floats(x)));
  if (!count) return;
  float last[kLanes] = {};
  std::copy(x, x + count, last);
  store_floats(last, silu(load_floats(last)));
  std::copy(last, last + count, x);
}

inline void finish(const RowsTask& t, int pair, int row, const __m256 (&acc)[2]) {
  const int rows = std::min(kHalfRows, t.weight->rows - row);
  if (rows <= 0) return;
  const __m256i lanes = _mm256_cmpgt_epi32(_mm256_set1_epi32(rows), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  float* out = t.out + size_t(t.target[pair]) * t.out_stride + row;
  __m256 v = acc[0];
  if (t.epilogue == Epilogue::swiglu) v = swiglu(acc[0], acc[1]);
  if (t.epilogue == Epilogue::accumulate) {
    // Rounded before it is added, never fused: an expert's share has the same bits alone as in the sum.
    __m256 share = _mm256_mul_ps(v, _mm256_set1_ps(t.factor[pair]));
    __asm__("" : "+x"(share));
    v = _mm256_add_ps(share, _mm256_maskload_ps(out, lanes));
  }
  _mm256_maskstore_ps(out, lanes, v);
}

using HalfFunction = void (*)(const Matrix&, const uint8_t*, const Activations&, const int32_t*, int, __m256 (*)[2]);

template <class C>
HalfFunction integer_function(int planes, int m) {
  static const HalfFunction table[3][4] = {{integer_half<C, 1, 1>, integer_half<C, 2, 1>, integer_half<C, 3, 1>, integer_half<C, 4, 1>},
                                           {integer_half<C, 1, 2>, integer_half<C, 2, 2>, integer_half<C, 3, 2>, integer_half<C, 4, 2>},
                                           {integer_half<C, 1, 3>, integer_half<C, 2, 3>, integer_half<C, 3, 3>, integer_half<C, 4, 3>}};
  return table[planes - 1][m - 1];
}

template <class C>
HalfFunction float_function(int m) {
  static const HalfFunction table[] = {float_half<C, 1>, float_half<C, 2>, float_half<C, 3>, float_half<C, 4>};
  return table[m - 1];
}

HalfFunction half_function(const Matrix& w, int planes, int m) {
  switch (w.format) {
    case Format::int4:
      if (w.group == 32) return integer_function<Int4Codec<32>>(planes, m);
      if (w.group == 64) return integer_function<Int4Codec<64>>(planes, m);
      return integer_function<Int4Codec<128>>(planes, m);
    case Format::mxfp4: return integer_function<Mxfp4Codec>(planes, m);
    case Format::int8: return integer_function<Int8Codec>(planes, m);
    case Format::fp8: return float_function<Fp8Codec>(m);
    default: return float_function<Bf16Codec>(m);
  }
}

void rows(const RowsTask& t) {
  const Matrix& w = *t.weight;
  constexpr int widest = 4;
  for (int block = t.block_begin; block < t.block_end; block++) {
    const uint8_t* stream = w.data + size_t(block) * w.block_bytes();
    for (int i = 0; i < t.count; i += widest) {
      const int m = std::min(widest, t.count - i);
      for (int half = 0; half < 2; half++) {
        __m256 acc[widest][2];
        half_function(w, t.activations->planes, m)(w, stream, *t.activations, t.source + i, half, acc);
        for (int k = 0; k < m; k++) finish(t, i + k, block * kBlockRows + half * kHalfRows, acc[k]);
      }
    }
  }
}

// ---- preparing activations ----

inline float to_bfloat16(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  if ((bits & 0x7fffffff) <= 0x7f800000) bits += 0x7fff + (bits >> 16 & 1);
  bits &= 0xffff0000;
  std::memcpy(&v, &bits, 4);
  return v;
}

void prepare_integer(const float* x, int cols, int token, const Matrix& w, Activations* out) {
  const int offset = w.format == Format::int4 ? 8 : w.format == Format::mxfp4 ? 12 : 0;  // int8 codes get their sign back
  const float top = fixed_point_top(out->planes);
  const int wide = w.group / 32;
  for (int s = 0; s < out->spans; s++) {
    float v[kSpanCols], peak = 0;
    bool broken = false;
    for (int i = 0; i < kSpanCols; i++) {
      v[i] = s * kSpanCols + i < cols ? x[s * kSpanCols + i] : 0.f;
      broken |= !std::isfinite(v[i]);
      peak = std::max(peak, std::fabs(v[i]));
    }
    const float scale = broken ? NAN : peak / top;
    const float inverse = scale >= 1.17549435e-38f ? 1.f / scale : 0.f;
    out->scale(token, s) = scale;
    int32_t sums[3][4] = {};
    for (int i = 0; i < kSpanCols; i++) {
      int rest = _mm_cvtss_si32(_mm_set_ss(v[i] * inverse));
      for (int p = out->planes - 1; p >= 0; p--) {  // the lowest 8 bits first, with their sign
        const int plane = p ? int8_t(rest) : rest;
        rest = (rest - plane) >> 8;
        out->code(p, token, s)[i] = int8_t(plane);
        sums[p][i / 32] += plane;
      }
    }
    for (int p = 0; p < out->planes; p++)
      for (int g = 0; g < 4 / wide; g++) {
        int32_t sum = 0;
        for (int k = 0; k < wide; k++) sum += sums[p][g * wide + k];
        out->sum(p, token, s)[g] = -offset * sum;
      }
  }
}

void prepare(const float* x, int cols, int token, const Matrix& w, Activations* out) {
  if (out->integer) return prepare_integer(x, cols, token, w, out);
  float* to = out->value(token);
  for (int c = 0; c < out->spans * kSpanCols; c++) to[c] = c >= cols ? 0.f : out->planes == 1 ? to_bfloat16(x[c]) : x[c];
}

}  // namespace
}  // namespace mimo
#include "attend_chunk.hpp"
namespace mimo {
namespace {

int64_t dots(int64_t count) {
  constexpr int kChains = 8;
  const __m256i w = _mm256_set1_epi8(3), x = _mm256_set1_epi8(5), ones = _mm256_set1_epi16(1);
  __m256i sum[kChains] = {};
  for (int64_t n = 0; n < count; n += kChains)
#pragma GCC unroll 8
    for (int i = 0; i < kChains; i++) {
      __m256i product = _mm256_maddubs_epi16(w, x);
      __asm__ volatile("" : "+x"(product));
      sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(product, ones));
    }
  __asm__ volatile("" : : "x"(sum[0]), "x"(sum[1]), "x"(sum[2]), "x"(sum[3]), "x"(sum[4]), "x"(sum[5]), "x"(sum[6]), "x"(sum[7]));
  return (count + kChains - 1) / kChains * kChains * 32;
}

const Isa kIsa = {"avx2", prepare, rows, attend_chunk, dot_rows, silu_all, dots};

}  // namespace

const Isa* avx2_isa() { return cpu_has_avx2() ? &kIsa : nullptr; }

}  // namespace mimo

#else
namespace mimo {
const Isa* avx2_isa() { return nullptr; }
}  // namespace mimo
#endif
