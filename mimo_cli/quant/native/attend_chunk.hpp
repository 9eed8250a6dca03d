// One chunk of attention, for the instruction set of the file that includes this (avx512.cpp, avx2.cpp). That file says what
// a register of floats is: Floats with kLanes of them, load_floats, load_bfloat16, spread, exp_ps, sum_lanes, max_lanes.
#pragma once
#include <cmath>
#include <cstring>
#include <limits>

#include "attention.hpp"

namespace mimo {
namespace {

inline Floats load_row(const float* p) { return load_floats(p); }
inline Floats load_row(const uint16_t* p) { return load_bfloat16(p); }
inline float load_one(float v) { return v; }
inline float load_one(uint16_t v) {
  const uint32_t bits = uint32_t(v) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

constexpr int kMostWidth = 1024;  // of a head

// Scores of one key, as float32 in `row` with zeros behind it, for all queries of the group.
inline void score_key(const AttendChunk& c, const float* row, int key) {
  int g = 0;
  for (; g + 4 <= c.group; g += 4) {
    const float* q = c.query + size_t(g) * c.query_stride;
    Floats sum[4] = {};
    for (int i = 0; i < c.width; i += kLanes) {
      const Floats k = load_floats(row + i);
#pragma GCC unroll 4
      for (int n = 0; n < 4; n++) sum[n] += k * load_floats(q + size_t(n) * c.query_stride + i);
    }
    for (int n = 0; n < 4; n++) c.scores[size_t(g + n) * kChunkKeys + key] = sum_lanes(sum[n]) * c.factor;
  }
  for (; g < c.group; g++) {
    Floats sum = {};
    for (int i = 0; i < c.width; i += kLanes) sum += load_floats(row + i) * load_floats(c.query + size_t(g) * c.query_stride + i);
    c.scores[size_t(g) * kChunkKeys + key] = sum_lanes(sum) * c.factor;
  }
}

template <class T>
void score_keys(const AttendChunk& c) {
  alignas(64) float row[kMostWidth + kLanes] = {};
  for (int key = 0; key < c.count; key++) {
    const T* stored = static_cast<const T*>(c.keys) + size_t(key) * c.width;
    int i = 0;
    for (; i + kLanes <= c.width; i += kLanes) store_floats(row + i, load_row(stored + i));
    for (; i < c.width; i++) row[i] = load_one(stored[i]);
    score_key(c, row, key);
  }
}

// Scores become exp(score - largest). A score that is no number makes the total none: exp_ps would hide it.
inline void weigh(const AttendChunk& c) {
  for (int g = 0; g < c.group; g++) {
    float* scores = c.scores + size_t(g) * kChunkKeys;
    const int padded = (c.count + kLanes - 1) / kLanes * kLanes;
    for (int i = c.count; i < padded; i++) scores[i] = scores[0];
    Floats largest = load_floats(scores);
    for (int i = kLanes; i < padded; i += kLanes) largest = max_floats(largest, load_floats(scores + i));
    const float top = max_lanes(largest);
    float total = 0;
    for (int i = 0; i < padded; i += kLanes) {
      const Floats score = load_floats(scores + i);
      store_floats(scores + i, exp_ps(score - spread(top)) + (score - score));
    }
    Floats sum = {};
    int i = 0;
    for (; i + kLanes <= c.count; i += kLanes) sum += load_floats(scores + i);
    total = sum_lanes(sum);
    for (; i < c.count; i++) total += scores[i];
    c.largest[g] = top, c.total[g] = total;
  }
}

// The values' weighted sums: R registers of columns of `Queries` queries at a time.
template <class T, int R, int Queries>
inline void mix_tile(const AttendChunk& c, int g, int column) {
  Floats sum[Queries][R] = {};
  const T* value = static_cast<const T*>(c.values) + column;
  for (int key = 0; key < c.count; key++, value += c.value_width) {
    Floats v[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) v[r] = load_row(value + r * kLanes);
#pragma GCC unroll 4
    for (int n = 0; n < Queries; n++) {
      const Floats weight = spread(c.scores[size_t(g + n) * kChunkKeys + key]);
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) sum[n][r] += weight * v[r];
    }
  }
  for (int n = 0; n < Queries; n++)
    for (int r = 0; r < R; r++) store_floats(c.mixed + size_t(g + n) * c.value_width + column + r * kLanes, sum[n][r]);
}

template <class T, int R>
inline void mix_columns(const AttendChunk& c, int column) {
  constexpr int kQueries = kLanes == 16 ? 4 : 2;
  int g = 0;
  for (; g + kQueries <= c.group; g += kQueries) mix_tile<T, R, kQueries>(c, g, column);
  for (; g < c.group; g++) mix_tile<T, R, 1>(c, g, column);
}

template <class T>
void mix_values(const AttendChunk& c) {
  int column = 0;
  for (; column + 4 * kLanes <= c.value_width; column += 4 * kLanes) mix_columns<T, 4>(c, column);
  for (; column + kLanes <= c.value_width; column += kLanes) mix_columns<T, 1>(c, column);
  for (; column < c.value_width; column++)
    for (int g = 0; g < c.group; g++) {
      float sum = 0;
      for (int key = 0; key < c.count; key++)
        sum += c.scores[size_t(g) * kChunkKeys + key] * load_one(static_cast<const T*>(c.values)[size_t(key) * c.value_width + column]);
      c.mixed[size_t(g) * c.value_width + column] = sum;
    }
}

// out[r] = rows[r] x for rows of float32 (the router). Four sums, always the same ones.
void dot_rows(const float* rows, int count, int cols, const float* x, float* out) {
  for (int r = 0; r < count; r++, rows += cols) {
    Floats sum[4] = {};
    int i = 0;
    for (; i + 4 * kLanes <= cols; i += 4 * kLanes)
#pragma GCC unroll 4
      for (int n = 0; n < 4; n++) sum[n] += load_floats(rows + i + n * kLanes) * load_floats(x + i + n * kLanes);
    float rest = 0;
    for (; i < cols; i++) rest += rows[i] * x[i];
    out[r] = sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3])) + rest;
  }
}

void attend_chunk(const AttendChunk& c) {
  c.is_bfloat16 ? score_keys<uint16_t>(c) : score_keys<float>(c);
  weigh(c);
  c.is_bfloat16 ? mix_values<uint16_t>(c) : mix_values<float>(c);
}

}  // namespace
}  // namespace mimo
