// AVX-512 VNNI kernels of the integer formats: u8 codes with an offset, times s8 activations. Included by avx512.cpp alone.
//
// What decides the speed of decoding one token is how far the core runs ahead of memory: its window holds some 300
// instructions, and hardware prefetching stops at every 4 KiB. So a line costs as few instructions as possible
// (activations are broadcast inside the dot product), and lines are touched in the order they lie: scales last.
// With several tokens the dot products bind: two streams of weights share each broadcast, and a span of weights is read by
// all tokens while it is in the nearest cache.
#pragma once
#include <immintrin.h>

#include <cstring>

#include "activations.hpp"
#include "matrix.hpp"

namespace mimo {
namespace {

constexpr size_t kPrefetchBytes = 2048;  // ahead of the stream
constexpr int kMostTokens = 64;          // that share one pass over a block of rows

typedef int32_t __attribute__((may_alias)) Quad;  // four activations as they lie in memory

inline __m512i broadcast4(const void* p) {
  int32_t v;
  std::memcpy(&v, p, 4);
  return _mm512_set1_epi32(v);
}

// One load, kept in a register: the compiler would rather fold it into each instruction that uses it.
inline __m512i load_line(const uint8_t* p) {
  __m512i line = _mm512_loadu_si512(p);
  __asm__("" : "+v"(line));
  return line;
}

// Dot product with four activations broadcast from memory: one instruction where the compiler would make two.
inline void dot_memory(__m512i& sum, __m512i w, const int8_t* x) {
  __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*reinterpret_cast<const Quad*>(x)));
}

inline void prefetch_line(const uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }

inline __m512 half_scales(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// Codecs split a line of 8 columns into the codes of columns 0..3 and of 4..7. kShift: `high_shifted` gives the second
// half shifted left by so many bits, which a sum of it takes back exactly; `high` gives it in its place.
template <int G>
struct Int4Codec {
  static constexpr int kGroup = G, kLineCols = 8, kScaleBytes = 32, kShift = 4;
  static constexpr bool kWide = false;
  __m512i mask = _mm512_set1_epi8(15);
  __m512i low(__m512i b) const { return _mm512_and_si512(b, mask); }
  __m512i high(__m512i b) const { return _mm512_and_si512(_mm512_srli_epi16(b, 4), mask); }
  __m512i high_shifted(__m512i b) const { return _mm512_andnot_si512(mask, b); }
  static __m512 scales(const uint8_t* p) { return half_scales(p); }
};

struct Mxfp4Codec {
  static constexpr int kGroup = 32, kLineCols = 8, kScaleBytes = 16, kShift = 0;
  static constexpr bool kWide = true;  // scales reach the end of float32's range: that of the activations comes first
  // Twice the e2m1 value plus 12, four times over: a byte permutation looks at six bits, so the upper ones need no mask.
  __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
  __m512i low(__m512i b) const { return _mm512_permutexvar_epi8(b, table); }
  __m512i high(__m512i b) const { return _mm512_permutexvar_epi8(_mm512_srli_epi16(b, 4), table); }
  __m512i high_shifted(__m512i b) const { return high(b); }
  static __m512 scales(const uint8_t* p) {  // 2^(byte - 127) by its bits; byte 0 is subnormal. The activations are halved.
    const __m512i e = _mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 23);
    return _mm512_castsi512_ps(_mm512_max_epu32(e, _mm512_set1_epi32(0x00400000)));
  }
};

struct Int8Codec {
  static constexpr int kGroup = 128, kLineCols = 4, kScaleBytes = 32, kShift = 0;
  static constexpr bool kWide = false;
  static __m512 scales(const uint8_t* p) { return half_scales(p); }
};

// What M tokens read in a span: records of activations.hpp.
template <int M, int P>
struct SpanInputs {
  const uint8_t* record[M];

  SpanInputs(const Activations& act, const int32_t* source, int span) {
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) record[m] = act.record(source[m], span);
  }
  const int8_t* codes(int m, int p) const { return reinterpret_cast<const int8_t*>(record[m]) + p * kSpanCols; }
  int32_t sum(int m, int p, int g) const {
    int32_t v;
    std::memcpy(&v, record[m] + P * kSpanCols + p * 16 + g * 4, 4);
    return v;
  }
  float scale(int m) const {
    float v;
    std::memcpy(&v, record[m] + P * (kSpanCols + 16), 4);
    return v;
  }
};

// Sums of codes times activations in one group of columns, exact: one integer, or with three planes 65536 high + low.
template <int P>
struct GroupSum {
  __m512i high, low;

  template <int S, int N>
  static __m512i total(const __m512i (&sums)[N]) {  // even sums: first half of the lines, odd ones: second, shifted left by S
    if constexpr (N == 1) return sums[0];
    if constexpr (N == 2) return _mm512_add_epi32(sums[0], _mm512_srai_epi32(sums[1], S));
    if constexpr (N == 4)
      return _mm512_add_epi32(_mm512_add_epi32(sums[0], sums[2]), _mm512_srai_epi32(_mm512_add_epi32(sums[1], sums[3]), S));
  }
  template <int S, int N>
  void take(const __m512i (&planes)[P][N]) {
    high = total<S>(planes[0]);
    if constexpr (P == 2) high = _mm512_add_epi32(_mm512_slli_epi32(high, 8), total<S>(planes[1]));
    if constexpr (P == 3) low = _mm512_add_epi32(_mm512_slli_epi32(total<S>(planes[1]), 8), total<S>(planes[2]));
  }
  __m512 value() const {
    const __m512 v = _mm512_cvtepi32_ps(high);
    if constexpr (P == 3) return _mm512_fmadd_ps(v, _mm512_set1_ps(65536.f), _mm512_cvtepi32_ps(low));  // beyond int32
    return v;
  }
};

// One group of S streams of codes times M tokens.
template <class C, int M, int P, int S>
inline void group_sums(const C& codec, const uint8_t* const (&codes)[S], const SpanInputs<M, P>& x, int g, GroupSum<P> (&out)[M][S]) {
  constexpr int kLines = C::kGroup / C::kLineCols, kSmall = M * P * S;
  // Several sums hide the latency of the dot product where there are few; adding them is exact.
  constexpr bool kSplit = C::kLineCols == 8 && kSmall <= 3;
  constexpr int kSums = kSplit ? 2 : C::kLineCols == 8 ? 1 : kSmall == 1 ? 4 : kSmall <= 3 ? 2 : 1;
  __m512i dot[M][S][P][kSums];
#pragma GCC unroll 4
  for (int m = 0; m < M; m++)
#pragma GCC unroll 3
    for (int p = 0; p < P; p++) {
      const __m512i offset = _mm512_set1_epi32(x.sum(m, p, g));
#pragma GCC unroll 2
      for (int j = 0; j < S; j++) {
        dot[m][j][p][0] = offset;
#pragma GCC unroll 4
        for (int c = 1; c < kSums; c++) dot[m][j][p][c] = _mm512_setzero_si512();
      }
    }
#pragma GCC unroll 32
  for (int i = 0; i < kLines; i++) {
    const int column = g * C::kGroup + i * C::kLineCols;
    __m512i half[S][2];
#pragma GCC unroll 2
    for (int j = 0; j < S; j++) {
      const uint8_t* p = codes[j] + (g * kLines + i) * 64;
      half[j][0] = load_line(p);
      if constexpr (C::kLineCols == 8) {
        half[j][1] = kSplit ? codec.high_shifted(half[j][0]) : codec.high(half[j][0]);
        half[j][0] = codec.low(half[j][0]);
      }
    }
#pragma GCC unroll 2
    for (int h = 0; h < C::kLineCols / 4; h++)  // outermost: a sum rests while the others are added to
#pragma GCC unroll 4
      for (int m = 0; m < M; m++)
#pragma GCC unroll 3
        for (int p = 0; p < P; p++) {
          const int8_t* quad = x.codes(m, p) + column + 4 * h;
          const int c = (C::kLineCols == 8 ? h : i) % kSums;
          if constexpr (S == 1) {
            dot_memory(dot[m][0][p][c], half[0][h], quad);
          } else {
            const __m512i four = broadcast4(quad);
#pragma GCC unroll 2
            for (int j = 0; j < S; j++) dot[m][j][p][c] = _mm512_dpbusd_epi32(dot[m][j][p][c], half[j][h], four);
          }
        }
  }
#pragma GCC unroll 4
  for (int m = 0; m < M; m++)
#pragma GCC unroll 2
    for (int j = 0; j < S; j++) out[m][j].template take<kSplit ? C::kShift : 0>(dot[m][j]);
}

// The groups of one span in their order, each with its scale, join the sum of a row. All kernels of a format add like this.
template <class C, int P>
struct SpanTotal {
  __m512 sum = _mm512_setzero_ps();
  void add(const GroupSum<P>& group, __m512 weight_scales, float scale) {
    if constexpr (C::kWide) sum = _mm512_fmadd_ps(_mm512_mul_ps(group.value(), _mm512_set1_ps(scale)), weight_scales, sum);
    else sum = _mm512_fmadd_ps(group.value(), weight_scales, sum);
  }
  __m512 join(__m512 acc, float scale) const {
    if constexpr (C::kWide) return _mm512_add_ps(acc, sum);
    return _mm512_fmadd_ps(sum, _mm512_set1_ps(scale), acc);
  }
};

// One token and one span: the codes of all streams, then their scales.
template <class C, int P, int S>
[[gnu::always_inline]] inline void decode_span(const C& codec, const uint8_t* stream, size_t code_bytes, size_t scale_bytes,
                                               const SpanInputs<1, P>& x, __m512 (&rows)[S]) {
  constexpr int kGroups = kSpanCols / C::kGroup;
  GroupSum<P> sums[S][kGroups];
#pragma GCC unroll 2
  for (int j = 0; j < S; j++)
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; g++) {
      const uint8_t* codes[1] = {stream + j * code_bytes};
      GroupSum<P> one[1][1];
      group_sums<C, 1, P, 1>(codec, codes, x, g, one);
      sums[j][g] = one[0][0];
      __asm__("" : "+v"(sums[j][g].high));  // now: its lines come before the scales
    }
  const uint8_t* scales = stream + S * code_bytes;
#pragma GCC unroll 2
  for (int j = 0; j < S; j++, scales += scale_bytes) {
    SpanTotal<C, P> total;
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; g++) total.add(sums[j][g], C::scales(scales + g * C::kScaleBytes), x.scale(0));
    rows[j] = total.join(rows[j], x.scale(0));
  }
}

// Prefetchers learn the stride of each load instruction: the longer the loop, the farther ahead they fetch.
template <class C, int P, int S>
void decode_block(const Matrix& w, const uint8_t* stream, const Activations& act, int source, __m512 (*acc)[2]) {
  constexpr int kUnroll = 2;
  const C codec;
  const size_t code_bytes = w.code_bytes(), scale_bytes = w.scale_bytes(), span_bytes = w.span_bytes();
  const int spans = w.spans();
  __m512 rows[S];
  for (int j = 0; j < S; j++) rows[j] = _mm512_setzero_ps();
  int s = 0;
  for (; s + kUnroll <= spans; s += kUnroll) {
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; u++, stream += span_bytes)
      decode_span<C, P, S>(codec, stream, code_bytes, scale_bytes, SpanInputs<1, P>(act, &source, s + u), rows);
  }
  for (; s < spans; s++, stream += span_bytes)
    decode_span<C, P, S>(codec, stream, code_bytes, scale_bytes, SpanInputs<1, P>(act, &source, s), rows);
  for (int j = 0; j < S; j++) acc[0][j] = rows[j];
}

// M tokens and one span of S streams, added to acc[m][j].
template <class C, int M, int P, int S>
void span_tile(const uint8_t* const (&codes)[S], const uint8_t* const (&scales)[S], const Activations& act, const int32_t* source, int span,
               __m512 (*acc)[2]) {
  const C codec;
  const SpanInputs<M, P> x(act, source, span);
  SpanTotal<C, P> total[M][S];
#pragma GCC unroll 4
  for (int g = 0; g < kSpanCols / C::kGroup; g++) {
    GroupSum<P> sums[M][S];
    group_sums<C, M, P, S>(codec, codes, x, g, sums);
#pragma GCC unroll 2
    for (int j = 0; j < S; j++) {
      const __m512 weight_scales = C::scales(scales[j] + g * C::kScaleBytes);
#pragma GCC unroll 4
      for (int m = 0; m < M; m++) total[m][j].add(sums[m][j], weight_scales, x.scale(m));
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < M; m++)
#pragma GCC unroll 2
    for (int j = 0; j < S; j++) acc[m][j] = total[m][j].join(acc[m][j], x.scale(m));
}

// Some tokens and one block of rows of two streams, or two blocks of one (`second`), or one block of one (null).
template <class C, int P, int S>
void batch_block(const Matrix& w, const uint8_t* first, const uint8_t* second, const Activations& act, const int32_t* source, int count,
                 __m512 (*acc)[2]) {
  constexpr int kTile = P == 1 ? 4 : 2;  // tokens side by side, as many as the registers hold
  const size_t code_bytes = w.code_bytes(), scale_bytes = w.scale_bytes(), span_bytes = w.span_bytes();
  for (int m = 0; m < count; m++) acc[m][0] = acc[m][1] = _mm512_setzero_ps();
  for (int s = 0, spans = w.spans(); s < spans; s++, first += span_bytes) {
    const uint8_t *codes[S], *scales[S];
    codes[0] = first, scales[0] = first + w.streams * code_bytes;
    if constexpr (S == 2) {
      codes[1] = second ? second + size_t(s) * span_bytes : first + code_bytes;
      scales[1] = second ? codes[1] + code_bytes : scales[0] + scale_bytes;
    }
    if (count * P >= 4) {  // the core does not run ahead by itself while it has so much to multiply
      for (size_t at = 0; at < span_bytes; at += 64) prefetch_line(first + kPrefetchBytes + at);
      if (second)
        for (size_t at = 0; at < span_bytes; at += 64) prefetch_line(second + s * span_bytes + kPrefetchBytes + at);
    }
    int m = 0;
    for (; m + kTile <= count; m += kTile) span_tile<C, kTile, P, S>(codes, scales, act, source + m, s, acc + m);
    if constexpr (kTile > 2) {
      for (; m + 2 <= count; m += 2) span_tile<C, 2, P, S>(codes, scales, act, source + m, s, acc + m);
    }
    if (m < count) span_tile<C, 1, P, S>(codes, scales, act, source + m, s, acc + m);
  }
}

using DecodeFunction = void (*)(const Matrix&, const uint8_t*, const Activations&, int, __m512 (*)[2]);
using BatchFunction = void (*)(const Matrix&, const uint8_t*, const uint8_t*, const Activations&, const int32_t*, int, __m512 (*)[2]);

struct IntegerFunctions {
  DecodeFunction decode[2];  // by streams - 1
  BatchFunction batch[2];    // by streams side by side - 1
};

template <class C, int P>
IntegerFunctions integer_functions() {
  return {{decode_block<C, P, 1>, decode_block<C, P, 2>}, {batch_block<C, P, 1>, batch_block<C, P, 2>}};
}

template <class C>
IntegerFunctions integer_functions(int planes) {
  return planes == 1 ? integer_functions<C, 1>() : planes == 2 ? integer_functions<C, 2>() : integer_functions<C, 3>();
}

inline IntegerFunctions integer_functions(const Matrix& w, int planes) {
  if (w.format == Format::int8) return integer_functions<Int8Codec>(planes);
  if (w.format == Format::mxfp4) return integer_functions<Mxfp4Codec>(planes);
  if (w.group == 32) return integer_functions<Int4Codec<32>>(planes);
  return w.group == 64 ? integer_functions<Int4Codec<64>>(planes) : integer_functions<Int4Codec<128>>(planes);
}

}  // namespace
}  // namespace mimo
