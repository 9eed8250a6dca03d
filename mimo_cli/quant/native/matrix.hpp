// Packed matrices: the one storage that every kernel reads, whatever the format of the weights.
//
// A matrix [rows, cols] is cut into blocks of 16 rows and, along the columns, into spans of 128 columns. A block is one
// linear stream of spans, so one thread reads one stream. Two matrices of the same shape (gate and up) can share a
// stream, span by span. Rows are padded to 16 and columns to 128; padding has zero weight.
//
//   4-bit and int8 span:  [codes of matrix 0][codes of matrix 1] [scales of matrix 0][scales of matrix 1]
//   fp8 block:            [scales: one float per span, each matrix, padded to 64 bytes] then spans of codes
//   bf16 span:            [codes of matrix 0][codes of matrix 1]
//
// Inside the codes of a span (r = row in the block 0..15, k = column in the span):
//   int4, mxfp4   64-byte lines of 8 columns: byte 4 r + c holds column 8 i + c in its low and 8 i + 4 + c in its high half
//   int8          64-byte lines of 4 columns: byte 4 r + c holds column 4 i + c, stored as value + 128
//   fp8           64-byte lines of 4 columns: 16 bytes for 4 rows, first columns 0,1 of each row, then columns 2,3
//   bf16          64-byte lines of 2 columns: 32 bits per row, column 2 i in the low half
// Scales: int4 and int8 float16 [group][row], mxfp4 e8m0 bytes [group][row].
#pragma once
#include <cstddef>
#include <cstdint>

namespace mimo {

enum class Format : int32_t { int4 = 0, mxfp4 = 1, int8 = 2, fp8 = 3, bf16 = 4 };

constexpr int kBlockRows = 16;
constexpr int kSpanCols = 128;

struct Matrix {
  Format format;
  int32_t group;     // columns that share a scale: 32, 64 or 128
  int32_t rows;      // real sizes; the stream holds them rounded up
  int32_t cols;
  int32_t streams;   // 1, or 2 for gate and up in one stream
  const uint8_t* data;

  int blocks() const { return (rows + kBlockRows - 1) / kBlockRows; }
  int spans() const { return (cols + kSpanCols - 1) / kSpanCols; }
  size_t code_bytes() const {  // codes of one matrix in one span
    switch (format) {
      case Format::int4:
      case Format::mxfp4: return kBlockRows * kSpanCols / 2;
      case Format::bf16: return kBlockRows * kSpanCols * 2;
      default: return kBlockRows * kSpanCols;
    }
  }
  size_t scale_bytes() const {  // scales of one matrix in one span, where they stand behind the codes
    switch (format) {
      case Format::int4: return size_t(kSpanCols / group) * kBlockRows * 2;
      case Format::mxfp4: return size_t(kSpanCols / 32) * kBlockRows;
      case Format::int8: return kBlockRows * 2;
      default: return 0;
    }
  }
  size_t head_bytes() const {  // scales that stand before the spans
    return format == Format::fp8 ? (size_t(streams) * spans() * 4 + 63) / 64 * 64 : 0;
  }
  size_t span_bytes() const { return size_t(streams) * (code_bytes() + scale_bytes()); }
  size_t block_bytes() const { return head_bytes() + size_t(spans()) * span_bytes(); }
  size_t bytes() const { return size_t(blocks()) * block_bytes(); }
};

}  // namespace mimo
