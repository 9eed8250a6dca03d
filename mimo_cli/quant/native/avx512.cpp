// AVX-512 kernels (VNNI for integer formats, BF16 and VBMI for float formats). Ice Lake servers, Zen 4 and later.
//
// One accumulator register holds 16 rows; activations are broadcast from memory, 4 bytes at a time. The order of all
// additions of one token depends on the format alone, never on the batch, the threads or the rows asked for.
#include "isa.hpp"

#if defined(__AVX512VNNI__) && defined(__AVX512BF16__) && defined(__AVX512VBMI__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu.hpp"

namespace mimo {
namespace {

constexpr size_t kPrefetchBytes = 2048;  // ahead of the stream

inline __m512i broadcast4(const void* p) {
  int32_t v;
  std::memcpy(&v, p, 4);
  return _mm512_set1_epi32(v);
}

// Worth its slot only where the dot products of several tokens keep the core from running ahead by itself.
template <int Tokens>
inline void prefetch(const uint8_t* p) {
  if constexpr (Tokens >= 4) _mm_prefetch(reinterpret_cast<const char*>(p + kPrefetchBytes), _MM_HINT_T0);
}

// One load, kept in a register: the compiler would rather fold it into each instruction that uses it.
inline __m512i load_line(const uint8_t* p) {
  __m512i line = _mm512_loadu_si512(p);
  __asm__("" : "+v"(line));
  return line;
}

inline __m512 half_scales(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// ---- integer formats: u8 codes with an offset, times s8 activations ----

// Codecs split a line of 8 columns into the codes of columns 0..3 and of 4..7. kHighShift: the second half comes out
// shifted left by so many bits, which its sum takes back exactly.
template <int G>
struct Int4Codec {
  static constexpr int kGroup = G, kLineCols = 8, kScaleBytes = 32, kHighShift = 4;
  __m512i mask = _mm512_set1_epi8(15);
  __m512i low(__m512i b) const { return _mm512_and_si512(b, mask); }
  __m512i high(__m512i b) const { return _mm512_andnot_si512(mask, b); }
  static __m512 scales(const uint8_t* p) { return half_scales(p); }
};

struct Mxfp4Codec {
  static constexpr int kGroup = 32, kLineCols = 8, kScaleBytes = 16, kHighShift = 0;
  // Twice the e2m1 value plus 12, four times over: a byte permutation looks at six bits, so the upper ones need no mask.
  __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
  __m512i low(__m512i b) const { return _mm512_permutexvar_epi8(b, table); }
  __m512i high(__m512i b) const { return _mm512_permutexvar_epi8(_mm512_srli_epi16(b, 4), table); }
  static __m512 scales(const uint8_t* p) {  // 2^(byte - 127) by its bits; byte 0 is subnormal. The activations are halved.
    const __m512i e = _mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 23);
    return _mm512_castsi512_ps(_mm512_max_epu32(e, _mm512_set1_epi32(0x00400000)));
  }
};

struct Int8Codec {
  static constexpr int kGroup = 128, kLineCols = 4, kScaleBytes = 32, kHighShift = 0;
  static __m512 scales(const uint8_t* p) { return half_scales(p); }
};

// Even sums belong to the first half of a line, odd ones to the second.
template <int S, int N>
inline __m512i total(const __m512i (&sums)[N]) {
  if constexpr (N == 1) return sums[0];
  if constexpr (N == 2) return _mm512_add_epi32(sums[0], _mm512_srai_epi32(sums[1], S));
  if constexpr (N == 4)
    return _mm512_add_epi32(_mm512_add_epi32(sums[0], sums[2]), _mm512_srai_epi32(_mm512_add_epi32(sums[1], sums[3]), S));
}

template <class C, int M, int P>
void integer_block(const Matrix& w, const uint8_t* stream, const Activations& act, const int32_t* source, __m512 (*acc)[2]) {
  constexpr int kGroups = kSpanCols / C::kGroup, kLines = C::kGroup / C::kLineCols;
  const C codec;
  const int spans = w.spans(), streams = w.streams;
  const size_t code_bytes = w.code_bytes(), scale_bytes = w.scale_bytes(), span_bytes = w.span_bytes();
  const int8_t* q[M][P];
  const int32_t* sum[M][P];
  const float* scale[M];
#pragma GCC unroll 8
  for (int m = 0; m < M; m++) {
    scale[m] = act.scale(source[m]);
    acc[m][0] = acc[m][1] = _mm512_setzero_ps();
#pragma GCC unroll 3
    for (int p = 0; p < P; p++) q[m][p] = act.code(p, source[m]), sum[m][p] = act.sum(p, source[m]);
  }
  for (int s = 0; s < spans; s++, stream += span_bytes) {
    for (int j = 0; j < streams; j++) {
      const uint8_t* codes = stream + j * code_bytes;
      const uint8_t* scales = stream + streams * code_bytes + j * scale_bytes;
      __m512 span_acc[M];
#pragma GCC unroll 8
      for (int m = 0; m < M; m++) span_acc[m] = _mm512_setzero_ps();
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; g++) {
        // Several integer sums per token hide the latency of the dot product when there are few tokens; adding them is exact.
        constexpr int kSums = M * P <= 2 ? (C::kLineCols == 8 ? 2 : 4) : M * P <= 4 || C::kHighShift ? 2 : 1;
        __m512i dot[M][P][kSums];
#pragma GCC unroll 8
        for (int m = 0; m < M; m++)
#pragma GCC unroll 3
          for (int p = 0; p < P; p++) {
            dot[m][p][0] = _mm512_set1_epi32(sum[m][p][s * 4 + g]);
#pragma GCC unroll 4
            for (int c = 1; c < kSums; c++) dot[m][p][c] = _mm512_setzero_si512();
          }
        const int column = s * kSpanCols + g * C::kGroup;
#pragma GCC unroll 16
        for (int i = 0; i < kLines; i++, codes += 64) {
          const __m512i b = load_line(codes);
          prefetch<M * P>(codes);
          if constexpr (C::kLineCols == 8) {
            const __m512i lo = codec.low(b), hi = codec.high(b);
#pragma GCC unroll 8
            for (int m = 0; m < M; m++)
#pragma GCC unroll 3
              for (int p = 0; p < P; p++) {
                __m512i &first = dot[m][p][i * 2 % kSums], &second = dot[m][p][(i * 2 + 1) % kSums];
                first = _mm512_dpbusd_epi32(first, lo, broadcast4(q[m][p] + column + 8 * i));
                second = _mm512_dpbusd_epi32(second, hi, broadcast4(q[m][p] + column + 8 * i + 4));
              }
          } else {
#pragma GCC unroll 8
            for (int m = 0; m < M; m++)
#pragma GCC unroll 3
              for (int p = 0; p < P; p++)
                dot[m][p][i % kSums] = _mm512_dpbusd_epi32(dot[m][p][i % kSums], b, broadcast4(q[m][p] + column + 4 * i));
          }
        }
        const __m512 ws = C::scales(scales + g * C::kScaleBytes);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
          __m512i d = total<C::kHighShift>(dot[m][0]);
          if constexpr (P == 2) d = _mm512_add_epi32(_mm512_slli_epi32(d, 8), total<C::kHighShift>(dot[m][1]));
          __m512 value = _mm512_cvtepi32_ps(d);
          if constexpr (P == 3) {  // 65536 high leaves int32: the high plane joins in float32
            const __m512i rest = _mm512_add_epi32(_mm512_slli_epi32(total<C::kHighShift>(dot[m][1]), 8), total<C::kHighShift>(dot[m][2]));
            value = _mm512_fmadd_ps(value, _mm512_set1_ps(65536.f), _mm512_cvtepi32_ps(rest));
          }
          span_acc[m] = _mm512_fmadd_ps(value, ws, span_acc[m]);
        }
      }
#pragma GCC unroll 8
      for (int m = 0; m < M; m++) acc[m][j] = _mm512_fmadd_ps(span_acc[m], _mm512_set1_ps(scale[m][s]), acc[m][j]);
    }
  }
}

// ---- float formats: bfloat16 pairs ----

// e4m3fn magnitude -> high and low byte of the equal bfloat16; exact, subnormals included.
struct Fp8Tables {
  alignas(64) uint8_t high[128], low[128];
  Fp8Tables() {
    for (int c = 0; c < 128; c++) {
      const int e = c >> 3, m = c & 7;
      const float v = e ? std::ldexp(1.f + m / 8.f, e - 7) : std::ldexp(m / 8.f, -6);
      uint32_t bits;
      std::memcpy(&bits, &v, 4);
      if (c == 127) bits = 0x7fc00000;  // NaN
      high[c] = uint8_t(bits >> 24), low[c] = uint8_t(bits >> 16);
    }
  }
};
const Fp8Tables kFp8Tables;

struct Fp8Codec {
  static constexpr int kLines = kSpanCols / 4, kPairsPerLine = 2;
  __m512i high0 = _mm512_load_si512(kFp8Tables.high), high1 = _mm512_load_si512(kFp8Tables.high + 64);
  __m512i low0 = _mm512_load_si512(kFp8Tables.low), low1 = _mm512_load_si512(kFp8Tables.low + 64);
  __m512i sign = _mm512_set1_epi8(char(0x80));
  void decode(const uint8_t* p, __m512i (&out)[2]) const {
    const __m512i b = _mm512_loadu_si512(p);
    __m512i hi = _mm512_permutex2var_epi8(high0, b, high1);
    hi = _mm512_ternarylogic_epi32(hi, b, sign, 0xf8);  // hi | (b & sign)
    const __m512i lo = _mm512_permutex2var_epi8(low0, b, low1);
    out[0] = _mm512_unpacklo_epi8(lo, hi), out[1] = _mm512_unpackhi_epi8(lo, hi);
  }
};

struct Bf16Codec {
  static constexpr int kLines = kSpanCols / 2, kPairsPerLine = 1;
  void decode(const uint8_t* p, __m512i (&out)[2]) const { out[0] = _mm512_loadu_si512(p); }
};

inline __m512 dot_pairs(__m512 acc, __m512i w, const uint16_t* x) {
  return _mm512_dpbf16_ps(acc, (__m512bh)w, (__m512bh)broadcast4(x));
}

template <class C, int M, int P>
void float_block(const Matrix& w, const uint8_t* stream, const Activations& act, const int32_t* source, __m512 (*acc)[2]) {
  constexpr int U = 4;  // partial sums: they hide the latency of the dot product
  const C codec;
  const int spans = w.spans(), streams = w.streams;
  const size_t code_bytes = w.code_bytes(), span_bytes = w.span_bytes();
  const float* block_scales = reinterpret_cast<const float*>(stream);
  stream += w.head_bytes();
  const uint16_t* x[M][P];
#pragma GCC unroll 8
  for (int m = 0; m < M; m++) {
    acc[m][0] = acc[m][1] = _mm512_setzero_ps();
#pragma GCC unroll 3
    for (int p = 0; p < P; p++) x[m][p] = act.pair(p, source[m]);
  }
  for (int s = 0; s < spans; s++, stream += span_bytes) {
    for (int j = 0; j < streams; j++) {
      const uint8_t* codes = stream + j * code_bytes;
      __m512 part[M][U];
#pragma GCC unroll 8
      for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int u = 0; u < U; u++) part[m][u] = _mm512_setzero_ps();
      for (int i = 0; i < C::kLines; i += U / C::kPairsPerLine) {
#pragma GCC unroll 4
        for (int u = 0; u < U; u += C::kPairsPerLine) {
          __m512i v[2];
          const int line = i + u / C::kPairsPerLine;
          codec.decode(codes + size_t(line) * 64, v);
          prefetch<M * P>(codes + size_t(line) * 64);
          const int column = s * kSpanCols + line * 2 * C::kPairsPerLine;
#pragma GCC unroll 2
          for (int k = 0; k < C::kPairsPerLine; k++)
#pragma GCC unroll 8
            for (int m = 0; m < M; m++)
#pragma GCC unroll 3
              for (int p = 0; p < P; p++) part[m][u + k] = dot_pairs(part[m][u + k], v[k], x[m][p] + column + 2 * k);
        }
      }
      float block_scale = 1.f;
      if (w.format == Format::fp8) std::memcpy(&block_scale, block_scales + size_t(j) * spans + s, 4);
#pragma GCC unroll 8
      for (int m = 0; m < M; m++) {
        const __m512 sum = _mm512_add_ps(_mm512_add_ps(part[m][0], part[m][1]), _mm512_add_ps(part[m][2], part[m][3]));
        acc[m][j] = _mm512_fmadd_ps(sum, _mm512_set1_ps(block_scale), acc[m][j]);
      }
    }
  }
}

// ---- epilogues ----

inline __m512 exp_ps(__m512 x) {  // relative error below 2e-7
  x = _mm512_max_ps(_mm512_min_ps(x, _mm512_set1_ps(88.37f)), _mm512_set1_ps(-103.f));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.442695041f)), 0);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.9875691500e-4f);
  for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
  p = _mm512_fmadd_ps(_mm512_mul_ps(r, r), p, _mm512_add_ps(r, _mm512_set1_ps(1.f)));
  return _mm512_scalef_ps(p, n);
}

inline __m512 swiglu(__m512 gate, __m512 up) {
  const __m512 e = exp_ps(_mm512_sub_ps(_mm512_setzero_ps(), gate));
  return _mm512_mul_ps(_mm512_div_ps(gate, _mm512_add_ps(e, _mm512_set1_ps(1.f))), up);
}

inline void finish(const RowsTask& t, int pair, int block, const __m512 (&acc)[2]) {
  const int left = t.weight->rows - block * kBlockRows;
  const __mmask16 rows = left >= kBlockRows ? 0xffff : __mmask16((1u << left) - 1);
  float* out = t.out + size_t(t.target[pair]) * t.out_stride + size_t(block) * kBlockRows;
  __m512 v = acc[0];
  if (t.epilogue == Epilogue::swiglu) v = swiglu(acc[0], acc[1]);
  if (t.epilogue == Epilogue::accumulate) {
    // Rounded before it is added, never fused: an expert's share has the same bits alone as in the sum.
    __m512 share = _mm512_mul_ps(v, _mm512_set1_ps(t.factor[pair]));
    __asm__("" : "+v"(share));
    v = _mm512_add_ps(share, _mm512_maskz_loadu_ps(rows, out));
  }
  _mm512_mask_storeu_ps(out, rows, v);
}

using BlockFunction = void (*)(const Matrix&, const uint8_t*, const Activations&, const int32_t*, __m512 (*)[2]);

// As many tokens at once as the registers hold.
constexpr int widest_integer(int planes) { return planes == 1 ? 8 : planes == 2 ? 4 : 2; }

template <class C, int P>
BlockFunction integer_function(int m) {
  static const BlockFunction table[] = {integer_block<C, 1, P>, integer_block<C, 2, P>,
                                        integer_block<C, std::min(3, widest_integer(P)), P>, integer_block<C, std::min(4, widest_integer(P)), P>,
                                        integer_block<C, std::min(5, widest_integer(P)), P>, integer_block<C, std::min(6, widest_integer(P)), P>,
                                        integer_block<C, std::min(7, widest_integer(P)), P>, integer_block<C, widest_integer(P), P>};
  return table[m - 1];
}

template <class C, int P>
BlockFunction float_function(int m) {
  static const BlockFunction table[] = {float_block<C, 1, P>, float_block<C, 2, P>, float_block<C, 3, P>, float_block<C, 4, P>};
  return table[m - 1];
}

template <class C>
BlockFunction integer_planes(int planes, int m) {
  return planes == 1 ? integer_function<C, 1>(m) : planes == 2 ? integer_function<C, 2>(m) : integer_function<C, 3>(m);
}

template <class C>
BlockFunction float_planes(int planes, int m) {
  return planes == 1 ? float_function<C, 1>(m) : float_function<C, 3>(m);
}

BlockFunction block_function(const Matrix& w, int planes, int m) {
  switch (w.format) {
    case Format::int4:
      if (w.group == 32) return integer_planes<Int4Codec<32>>(planes, m);
      return w.group == 64 ? integer_planes<Int4Codec<64>>(planes, m) : integer_planes<Int4Codec<128>>(planes, m);
    case Format::mxfp4: return integer_planes<Mxfp4Codec>(planes, m);
    case Format::int8: return integer_planes<Int8Codec>(planes, m);
    case Format::fp8: return float_planes<Fp8Codec>(planes, m);
    default: return float_planes<Bf16Codec>(planes, m);
  }
}

void rows(const RowsTask& t) {
  const Matrix& w = *t.weight;
  const int planes = t.activations->planes;
  const int widest = reads_integers(w.format) ? widest_integer(planes) : 4;
  for (int block = t.block_begin; block < t.block_end; block++) {
    const uint8_t* stream = w.data + size_t(block) * w.block_bytes();
    for (int i = 0; i < t.count; i += widest) {
      const int m = std::min(widest, t.count - i);
      __m512 acc[8][2];
      block_function(w, planes, m)(w, stream, *t.activations, t.source + i, acc);
      for (int k = 0; k < m; k++) finish(t, i + k, block, acc[k]);
    }
  }
}

// ---- preparing activations ----

void prepare_integer(const float* x, int cols, int token, const Matrix& w, Activations* out) {
  const int offset = w.format == Format::int4 ? 8 : w.format == Format::mxfp4 ? 12 : 128;
  const float top = fixed_point_top(out->planes);
  for (int s = 0; s < out->spans; s++) {
    __m512 v[8], largest = _mm512_setzero_ps();
    unsigned broken = 0;
    for (int i = 0; i < 8; i++) {
      const int left = cols - s * kSpanCols - i * 16;
      const __mmask16 valid = left >= 16 ? 0xffff : left > 0 ? __mmask16((1u << left) - 1) : 0;
      v[i] = _mm512_maskz_loadu_ps(valid, x + s * kSpanCols + i * 16);
      largest = _mm512_max_ps(largest, _mm512_abs_ps(v[i]));
      broken |= _mm512_fpclass_ps_mask(v[i], 0x99);  // NaN or infinity
    }
    const float scale = broken ? NAN : _mm512_reduce_max_ps(largest) / top;
    const float inverse = scale >= 1.17549435e-38f ? 1.f / scale : 0.f;  // all but zero: below float32's normal range
    out->scale(token)[s] = w.format == Format::mxfp4 ? scale * .5f : scale;  // codes of mxfp4 are doubled
    int32_t sums[3][4] = {};
    for (int i = 0; i < 8; i++) {
      const __m512i code = _mm512_cvtps_epi32(_mm512_mul_ps(v[i], _mm512_set1_ps(inverse)));
      __m512i rest = code;
      for (int p = out->planes - 1; p >= 0; p--) {  // the lowest 8 bits first, with their sign
        const __m512i plane = p ? _mm512_srai_epi32(_mm512_slli_epi32(rest, 24), 24) : rest;
        rest = _mm512_srai_epi32(_mm512_sub_epi32(rest, plane), 8);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out->code(p, token) + s * kSpanCols + i * 16), _mm512_cvtepi32_epi8(plane));
        sums[p][i / 2] += _mm512_reduce_add_epi32(plane);
      }
    }
    for (int p = 0; p < out->planes; p++)  // what the offset of the codes adds, per group of weights
      for (int g = 0, wide = w.group / 32; g < 4 / wide; g++) {
        int32_t sum = 0;
        for (int k = 0; k < wide; k++) sum += sums[p][g * wide + k];
        out->sum(p, token)[s * 4 + g] = -offset * sum;
      }
  }
}

void prepare_pairs(const float* x, int cols, int token, Activations* out) {
  for (int c = 0; c < out->spans * kSpanCols; c += 16) {
    const int left = cols - c;
    const __mmask16 valid = left >= 16 ? 0xffff : left > 0 ? __mmask16((1u << left) - 1) : 0;
    __m512 rest = _mm512_maskz_loadu_ps(valid, x + c);
    for (int p = 0; p < out->planes; p++) {
      const __m256i plane = (__m256i)_mm512_cvtneps_pbh(rest);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out->pair(p, token) + c), plane);
      rest = _mm512_sub_ps(rest, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(plane), 16)));
    }
  }
}

void prepare(const float* x, int cols, int token, const Matrix& w, Activations* out) {
  if (out->integer) prepare_integer(x, cols, token, w, out);
  else prepare_pairs(x, cols, token, out);
}

int64_t dots(int64_t count) {
  constexpr int kChains = 12;  // more than the latency of the instruction
  const __m512i w = _mm512_set1_epi8(3), x = _mm512_set1_epi8(5), zero = _mm512_setzero_si512();
  __m512i a = zero, b = zero, c = zero, d = zero, e = zero, f = zero, g = zero, h = zero, i = zero, j = zero, k = zero, l = zero;
  for (int64_t n = 0; n < count; n += kChains) {
    for (__m512i* sum : {&a, &b, &c, &d, &e, &f, &g, &h, &i, &j, &k, &l}) *sum = _mm512_dpbusd_epi32(*sum, w, x);
    __asm__ volatile("" : "+v"(a), "+v"(b), "+v"(c), "+v"(d), "+v"(e), "+v"(f), "+v"(g), "+v"(h), "+v"(i), "+v"(j), "+v"(k), "+v"(l));
  }
  return (count + kChains - 1) / kChains * kChains * 64;
}

const Isa kIsa = {"avx512", prepare, rows, dots};

}  // namespace

const Isa* avx512_isa() { return cpu_has_avx512() ? &kIsa : nullptr; }

}  // namespace mimo

#else
namespace mimo {
const Isa* avx512_isa() { return nullptr; }
}  // namespace mimo
#endif
