// Activations of some tokens, prepared once for all rows that will read them.
//
// Integer formats read fixed point of 8, 16 or 24 bits, a plane of 8 bits each, the highest first, scaled by the largest
// magnitude in each span of 128 columns. Float formats read bfloat16: one plane where that is exact, else two more, each
// with what those before it lost. int4, mxfp4: the sum of each 32 columns pays for the offset of the codes.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "matrix.hpp"

namespace mimo {

// int8: 8-bit activations for integer formats. bfloat16: activations rounded to bfloat16, as a bfloat16 network has them
// (integer formats: 16-bit fixed point). exact: the 24 significant bits of float32 for both.
enum class Precision : int32_t { int8 = 0, exact = 1, bfloat16 = 2 };

struct FreeDeleter {
  void operator()(void* p) const { std::free(p); }
};

// Grows, never shrinks: a decoding loop allocates once. 64-byte aligned.
template <class T>
class Scratch {
 public:
  T* ensure(size_t count) {
    if (count > capacity_) {
      size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
      data_.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
      if (!data_) std::abort();
      capacity_ = count;
    }
    return data_.get();
  }
  T* get() const { return data_.get(); }

 private:
  std::unique_ptr<T[], FreeDeleter> data_;
  size_t capacity_ = 0;
};

struct Activations {
  int spans = 0;                // columns are padded to whole spans
  int planes = 1;
  bool integer = true;
  Scratch<uint8_t> records;     // integer: [token][span] one record: codes [plane][128] int8, sums [plane][4] int32, scale float
  Scratch<uint16_t> pairs;      // float: [plane][token][stride] bfloat16, or (AVX2) [token][stride] float32 in the same room
  int tokens = 0;

  void resize(int token_count, int span_count, int plane_count, bool as_integer) {
    tokens = token_count;
    spans = span_count;
    planes = plane_count;
    integer = as_integer;
    if (integer) {
      records.ensure(tokens * token_bytes());
    } else {
      pairs.ensure(size_t(planes < 2 ? 2 : planes) * tokens * stride());
    }
  }
  // Cells from one token to the next. Not a power of two: tokens read side by side must not meet in one set of the cache.
  size_t stride() const { return size_t(spans) * kSpanCols + 64; }
  // Beside each other lies what is read together: one stream of activations beside that of the weights. sums: of 32 codes.
  size_t record_bytes() const { return (size_t(planes) * (kSpanCols + 16) + 4 + 63) / 64 * 64; }
  size_t token_bytes() const { return spans * record_bytes() + 64; }
  uint8_t* record(int token, int span) const { return records.get() + token * token_bytes() + span * record_bytes(); }
  int8_t* code(int plane, int token, int span) const { return reinterpret_cast<int8_t*>(record(token, span)) + plane * kSpanCols; }
  int32_t* sum(int plane, int token, int span) const {
    return reinterpret_cast<int32_t*>(record(token, span) + planes * kSpanCols) + plane * 4;
  }
  float& scale(int token, int span) const { return *reinterpret_cast<float*>(record(token, span) + planes * (kSpanCols + 16)); }
  float* value(int token) const { return reinterpret_cast<float*>(pairs.get()) + size_t(token) * stride(); }
  uint16_t* pair(int plane, int token) const { return pairs.get() + (size_t(plane) * tokens + token) * stride(); }
};

// Largest fixed-point magnitude: 127 in the highest plane, zero below, so that no plane leaves int8.
inline float fixed_point_top(int planes) { return planes == 1 ? 127.f : planes == 2 ? 32512.f : 8323072.f; }

inline bool reads_integers(Format format) { return format == Format::int4 || format == Format::mxfp4 || format == Format::int8; }

}  // namespace mimo
