#include "packing.hpp"

#include <cstring>

#include "spans.hpp"

namespace mimo {
namespace {

// Code of (row, column) as the stream stores it; padding has value zero.
uint8_t code_at(const Matrix& w, const uint8_t* codes, int row, int col) {
  const bool inside = row < w.rows && col < w.cols;
  const uint8_t v = inside ? codes[size_t(row) * w.cols + col] : 0;
  if (w.format == Format::int4) return uint8_t(int8_t(v) + 8) & 15;
  if (w.format == Format::int8) return uint8_t(int8_t(v) + 128);
  return v;
}

void pack_span(const Matrix& w, uint8_t* out, const uint8_t* codes, int row, int col) {
  for (int r = 0; r < kBlockRows; r++)
    for (int k = 0; k < kSpanCols; k++) {
      const int in_row = row + r, in_col = col + k;
      switch (w.format) {
        case Format::int4:
        case Format::mxfp4: {
          uint8_t& cell = out[(k / 8) * 64 + r * 4 + k % 4];
          const uint8_t c = code_at(w, codes, in_row, in_col);
          cell = k % 8 < 4 ? c : uint8_t(cell | c << 4);
          break;
        }
        case Format::int8: out[(k / 4) * 64 + r * 4 + k % 4] = code_at(w, codes, in_row, in_col); break;
        case Format::fp8: out[(k / 4) * 64 + (r / 4) * 16 + (k % 4 / 2) * 8 + (r % 4) * 2 + k % 2] = code_at(w, codes, in_row, in_col); break;
        case Format::bf16: {
          uint16_t v = 0;
          if (in_row < w.rows && in_col < w.cols) std::memcpy(&v, codes + (size_t(in_row) * w.cols + in_col) * 2, 2);
          std::memcpy(out + (k / 2) * 64 + r * 4 + (k % 2) * 2, &v, 2);
        }
      }
    }
}

template <class T>
T load(const uint8_t* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// The same for a span that lies wholly inside the matrix: a few words per row instead of single bytes.
void pack_full_span(const Matrix& w, uint8_t* out, const uint8_t* codes, int row, int col) {
  const size_t width = w.format == Format::bf16 ? 2 : 1;
  for (int r = 0; r < kBlockRows; r++) {
    const uint8_t* in = codes + (size_t(row + r) * w.cols + col) * width;
    switch (w.format) {
      case Format::int4:
      case Format::mxfp4: {
        const uint32_t flip = w.format == Format::int4 ? 0x08080808u : 0u;  // value + 8 in four bits
        for (int i = 0; i < kSpanCols / 8; i++) {
          const uint32_t low = (load<uint32_t>(in + 8 * i) ^ flip) & 0x0f0f0f0fu, high = (load<uint32_t>(in + 8 * i + 4) ^ flip) & 0x0f0f0f0fu;
          const uint32_t cell = low | high << 4;
          std::memcpy(out + i * 64 + r * 4, &cell, 4);
        }
        break;
      }
      case Format::int8:
        for (int i = 0; i < kSpanCols / 4; i++) {
          const uint32_t cell = load<uint32_t>(in + 4 * i) ^ 0x80808080u;  // value + 128
          std::memcpy(out + i * 64 + r * 4, &cell, 4);
        }
        break;
      case Format::fp8:
        for (int i = 0; i < kSpanCols / 4; i++) {
          uint8_t* cell = out + i * 64 + (r / 4) * 16 + (r % 4) * 2;
          std::memcpy(cell, in + 4 * i, 2);
          std::memcpy(cell + 8, in + 4 * i + 2, 2);
        }
        break;
      case Format::bf16:
        for (int i = 0; i < kSpanCols / 2; i++) std::memcpy(out + i * 64 + r * 4, in + 4 * i, 4);
    }
  }
}

}  // namespace

void pack_rows(const Matrix& w, uint8_t* data, int which, const void* codes, const void* scales, int row_begin, int row_end) {
  const size_t code_bytes = w.code_bytes(), scale_bytes = w.scale_bytes(), span_bytes = w.span_bytes();
  const int group = w.format == Format::int8 ? kSpanCols : w.group, groups = w.format == Format::bf16 ? 0 : (w.cols + group - 1) / group;
  const auto* source = static_cast<const uint8_t*>(codes);
  const auto* scale_source = static_cast<const uint8_t*>(scales);
  const size_t width = w.format == Format::mxfp4 ? 1 : 2;
  const SpanTiles* tiles = avx512_spans();
  for (int row = row_begin; row < row_end; row += kBlockRows) {
    const int block = row / kBlockRows;
    uint8_t* stream = data + size_t(block) * w.block_bytes();
    if (w.format == Format::fp8)
      std::memcpy(stream + size_t(which) * w.spans() * 4, scale_source + size_t(block) * w.spans() * 4, size_t(w.spans()) * 4);
    stream += w.head_bytes();
    for (int s = 0; s < w.spans(); s++, stream += span_bytes) {
      const bool full = row + kBlockRows <= w.rows && (s + 1) * kSpanCols <= w.cols;
      const uint8_t* corner = source + size_t(row) * w.cols + size_t(s) * kSpanCols;
      uint8_t* out_codes = stream + which * code_bytes;
      if (full && tiles && w.format == Format::fp8) tiles->fp8(corner, size_t(w.cols), out_codes);
      else if (full && tiles && w.format == Format::int8) tiles->int8(corner, size_t(w.cols), out_codes);
      else if (full && tiles && w.format == Format::int4) tiles->codes(corner, size_t(w.cols), 8, out_codes);
      else if (full && tiles && w.format == Format::mxfp4) tiles->codes(corner, size_t(w.cols), 0, out_codes);
      else (full ? pack_full_span : pack_span)(w, out_codes, source, row, s * kSpanCols);
      if (!scale_bytes) continue;
      uint8_t* out = stream + w.streams * code_bytes + which * scale_bytes;
      for (int g = 0; g < kSpanCols / group; g++)
        for (int r = 0; r < kBlockRows; r++) {
          const int at = s * (kSpanCols / group) + g;
          uint8_t* cell = out + (size_t(g) * kBlockRows + r) * width;
          if (row + r < w.rows && at < groups) std::memcpy(cell, scale_source + (size_t(row + r) * groups + at) * width, width);
          else std::memset(cell, 0, width);
        }
    }
  }
}

void pack_nibbles(const Matrix& w, uint8_t* data, int which, const uint8_t* nibbles, const uint8_t* scales, int row_begin, int row_end) {
  const SpanTiles* tiles = avx512_spans();
  const size_t row_bytes = size_t(w.cols) / 2, groups = size_t(w.cols) / 32;
  for (int row = row_begin; row < row_end; row += kBlockRows) {
    uint8_t* stream = data + size_t(row / kBlockRows) * w.block_bytes();
    const int rows = row + kBlockRows <= w.rows ? kBlockRows : w.rows - row;
    for (int s = 0; s < w.spans(); s++, stream += w.span_bytes()) {
      const int cols = (s + 1) * kSpanCols <= w.cols ? kSpanCols : w.cols - s * kSpanCols;
      uint8_t *codes = stream + which * w.code_bytes(), *out_scales = stream + w.streams * w.code_bytes() + which * w.scale_bytes();
      const uint8_t* in = nibbles + size_t(row) * row_bytes + size_t(s) * (kSpanCols / 2);
      const bool full = rows == kBlockRows && cols == kSpanCols;
      if (full && tiles) tiles->nibbles(in, row_bytes, codes);
      else std::memset(codes, 0, w.code_bytes());
      if (!full) std::memset(out_scales, 0, w.scale_bytes());
      for (int r = 0; r < rows; r++) {
        for (int g = 0; g < cols / 32; g++) out_scales[g * kBlockRows + r] = scales[size_t(row + r) * groups + size_t(s) * 4 + g];
        if (full && tiles) continue;
        for (int k = 0; k < cols; k++) {
          const int code = in[size_t(r) * row_bytes + k / 2] >> k % 2 * 4 & 15;
          codes[k / 8 * 64 + r * 4 + k % 4] |= uint8_t(code << k % 8 / 4 * 4);
        }
      }
    }
  }
}

}  // namespace mimo
