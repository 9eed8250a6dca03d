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

#include "avx512_integers.hpp"
#include "cpu.hpp"

namespace mimo {
namespace {

// Worth its slot only where the dot products of several tokens keep the core from running ahead by itself.
template <int Tokens>
inline void prefetch(const uint8_t* p) {
  if constexpr (Tokens >= 4) prefetch_line(p + kPrefetchBytes);
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

// Dot product with two activations broadcast from memory: one instruction for one token, where the compiler would make two.
// With several, whose dot products bind, a broadcast by itself is faster.
template <int M>
inline __m512 dot_pairs(__m512 acc, __m512i w, const uint16_t* x) {
  if constexpr (M > 1) return _mm512_dpbf16_ps(acc, (__m512bh)w, (__m512bh)broadcast4(x));
  __asm__("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*reinterpret_cast<const Quad*>(x)));
  return acc;
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
              for (int p = 0; p < P; p++) part[m][u + k] = dot_pairs<M>(part[m][u + k], v[k], x[m][p] + column + 2 * k);
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

using Floats = __m512;  // for attend_chunk.hpp
constexpr int kLanes = 16;
inline Floats load_floats(const float* p) { return _mm512_loadu_ps(p); }
inline void store_floats(float* p, Floats v) { _mm512_storeu_ps(p, v); }
inline Floats load_bfloat16(const uint16_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
}
inline Floats spread(float v) { return _mm512_set1_ps(v); }
inline Floats max_floats(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline float max_lanes(Floats v) { return _mm512_reduce_max_ps(v); }
inline float sum_lanes(Floats v) { return _mm512_reduce_add_ps(v); }

inline __m512 silu(__m512 x) {
  const __m512 e = exp_ps(_mm512_sub_ps(_mm512_setzero_ps(), x));
  return _mm512_div_ps(x, _mm512_add_ps(e, _mm512_set1_ps(1.f)));
}
inline __m512 swiglu(__m512 gate, __m512 up) { return _mm512_mul_ps(silu(gate), up); }

void silu_all(float* x, size_t count) {
  for (; count >= kLanes; x += kLanes, count -= kLanes) store_floats(x, silu(load_floats(x)));
  if (!count) return;
  float last[kLanes] = {};
  std::copy(x, x + count, last);
  store_floats(last, silu(load_floats(last)));
  std::copy(last, last + count, x);
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

// ---- which kernel for which rows ----

using BlockFunction = void (*)(const Matrix&, const uint8_t*, const Activations&, const int32_t*, __m512 (*)[2]);

template <class C, int P>
BlockFunction float_function(int m) {
  static const BlockFunction table[] = {float_block<C, 1, P>, float_block<C, 2, P>, float_block<C, 3, P>, float_block<C, 4, P>};
  return table[m - 1];
}

template <class C>
BlockFunction float_planes(int planes, int m) {
  return planes == 1 ? float_function<C, 1>(m) : float_function<C, 3>(m);
}

void float_rows(const RowsTask& t) {
  constexpr int kTile = 4;
  const Matrix& w = *t.weight;
  for (int block = t.block_begin; block < t.block_end; block++) {
    const uint8_t* stream = w.data + size_t(block) * w.block_bytes();
    for (int i = 0; i < t.count; i += kTile) {
      const int m = std::min(kTile, t.count - i), planes = t.activations->planes;
      __m512 acc[kTile][2];
      (w.format == Format::fp8 ? float_planes<Fp8Codec>(planes, m) : float_planes<Bf16Codec>(planes, m))(w, stream, *t.activations, t.source + i, acc);
      for (int k = 0; k < m; k++) finish(t, i + k, block, acc[k]);
    }
  }
}

// Blocks of a matrix of one stream stand side by side where several tokens read them: two streams share each activation.
constexpr int kPairTokens = 4;

void integer_rows(const RowsTask& t) {
  const Matrix& w = *t.weight;
  const IntegerFunctions functions = integer_functions(w, t.activations->planes);
  const size_t block_bytes = w.block_bytes();
  __m512 acc[kMostTokens][2];
  for (int block = t.block_begin; block < t.block_end;) {
    const uint8_t* stream = w.data + size_t(block) * block_bytes;
    if (t.count == 1) {
      functions.decode[w.streams - 1](w, stream, *t.activations, t.source[0], acc);
      finish(t, 0, block++, acc[0]);
      continue;
    }
    const bool is_pair = w.streams == 1 && t.count >= kPairTokens && block + 2 <= t.block_end;
    const BatchFunction batch = functions.batch[w.streams == 2 || is_pair];
    for (int i = 0; i < t.count; i += kMostTokens) {
      const int m = std::min(kMostTokens, t.count - i);
      batch(w, stream, is_pair ? stream + block_bytes : nullptr, *t.activations, t.source + i, m, acc);
      for (int k = 0; k < m; k++) {
        if (is_pair) finish(t, i + k, block + 1, {acc[k][1], acc[k][1]});
        finish(t, i + k, block, acc[k]);
      }
    }
    block += is_pair ? 2 : 1;
  }
}

void rows(const RowsTask& t) {
  if (reads_integers(t.weight->format)) integer_rows(t);
  else float_rows(t);
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
    out->scale(token, s) = w.format == Format::mxfp4 ? scale * .5f : scale;  // codes of mxfp4 are doubled
    int32_t sums[3][4] = {};
    for (int i = 0; i < 8; i++) {
      const __m512i code = _mm512_cvtps_epi32(_mm512_mul_ps(v[i], _mm512_set1_ps(inverse)));
      __m512i rest = code;
      for (int p = out->planes - 1; p >= 0; p--) {  // the lowest 8 bits first, with their sign
        const __m512i plane = p ? _mm512_srai_epi32(_mm512_slli_epi32(rest, 24), 24) : rest;
        rest = _mm512_srai_epi32(_mm512_sub_epi32(rest, plane), 8);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out->code(p, token, s) + i * 16), _mm512_cvtepi32_epi8(plane));
        sums[p][i / 2] += _mm512_reduce_add_epi32(plane);
      }
    }
    for (int p = 0; p < out->planes; p++)  // what the offset of the codes adds, per group of weights
      for (int g = 0, wide = w.group / 32; g < 4 / wide; g++) {
        int32_t sum = 0;
        for (int k = 0; k < wide; k++) sum += sums[p][g * wide + k];
        out->sum(p, token, s)[g] = -offset * sum;
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

}  // namespace
}  // namespace mimo
#include "attend_chunk.hpp"
namespace mimo {
namespace {

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

const Isa kIsa = {"avx512", prepare, rows, attend_chunk, dot_rows, silu_all, dots};

}  // namespace

const Isa* avx512_isa() { return cpu_has_avx512() ? &kIsa : nullptr; }

}  // namespace mimo

#else
namespace mimo {
const Isa* avx512_isa() { return nullptr; }
}  // namespace mimo
#endif
