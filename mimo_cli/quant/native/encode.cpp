#include "encode.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "quantize.hpp"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define MIMO_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MIMO_CLONES
#endif

namespace mimo {
namespace {

const float kE2m1[16] = {0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6};

float e4m3(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const float magnitude = exponent ? std::ldexp(8.f + mantissa, exponent - 10) : std::ldexp(float(mantissa), -9);
  return (code & 0x7f) == 0x7f ? NAN : code & 0x80 ? -magnitude : magnitude;
}

struct Fp8Table {
  float value[256];
  Fp8Table() {
    for (int i = 0; i < 256; i++) value[i] = e4m3(uint8_t(i));
  }
};

}  // namespace

bool can_encode(int rows, int cols) { return avx512_spans() && rows % kBlockRows == 0 && cols % kSpanCols == 0; }

bool encode(const Matrix& w, uint8_t* data, int which, const Source& source, Loss* loss) {
  const SpanTiles* tiles = avx512_spans();
  const bool is_int4 = w.format == Format::int4;
  const auto of_floats = is_int4 ? tiles->int4_of_floats : tiles->mxfp4_of_floats;
  const auto of_fp8 = is_int4 ? tiles->int4_of_fp8 : tiles->mxfp4_of_fp8;
  const int spans = w.spans();
  bool sound = true;
  for (int row = 0; row < w.rows; row += kBlockRows) {
    uint8_t* stream = data + size_t(row / kBlockRows) * w.block_bytes();
    for (int s = 0; s < spans; s++, stream += w.span_bytes()) {
      uint8_t* codes = stream + which * w.code_bytes();
      uint8_t* scales = stream + w.streams * w.code_bytes() + which * w.scale_bytes();
      const size_t at = size_t(row) * w.cols + size_t(s) * kSpanCols;
      if (source.kind == Source::floats) {
        sound &= of_floats(static_cast<const float*>(source.data) + at, size_t(w.cols), w.group, codes, scales, loss);
        continue;
      }
      float scale[kBlockRows];
      for (int r = 0; r < kBlockRows; r++) scale[r] = source.scales[size_t(source.row_block[row + r]) * spans + s];
      sound &= of_fp8(static_cast<const uint8_t*>(source.data) + at, size_t(w.cols), scale, w.group, codes, scales, loss);
    }
  }
  return sound;
}

MIMO_CLONES
bool any_fp8_nan(const uint8_t* codes, size_t count) {
  constexpr size_t kPiece = 4096;
  for (size_t from = 0; from < count; from += kPiece) {
    const size_t n = std::min(kPiece, count - from);
    uint8_t found = 0;
    for (size_t i = 0; i < n; i++) found |= uint8_t((codes[from + i] & 0x7f) == 0x7f);
    if (found) return true;
  }
  return false;
}

void decode_stream(const Matrix& w, int which, float* out) {
  static const Fp8Table fp8;
  for (int block = 0; block < w.blocks(); block++) {
    const uint8_t* head = w.data + size_t(block) * w.block_bytes();
    for (int s = 0; s < w.spans(); s++) {
      const uint8_t* span = head + w.head_bytes() + size_t(s) * w.span_bytes();
      const uint8_t *codes = span + which * w.code_bytes(), *stored = span + w.streams * w.code_bytes() + which * w.scale_bytes();
      const int cols = std::min(kSpanCols, w.cols - s * kSpanCols), rows = std::min(kBlockRows, w.rows - block * kBlockRows);
      for (int r = 0; r < rows; r++) {
        float values[kSpanCols], scales[4] = {1, 1, 1, 1};
        switch (w.format) {
          case Format::int4:
          case Format::mxfp4:
            for (int line = 0; line < 16; line++)
              for (int c = 0; c < 4; c++) {
                const uint8_t pair = codes[line * 64 + r * 4 + c];
                float* to = values + line * 8 + c;
                to[0] = w.format == Format::int4 ? float(pair & 15) - 8.f : kE2m1[pair & 15];
                to[4] = w.format == Format::int4 ? float(pair >> 4) - 8.f : kE2m1[pair >> 4];
              }
            break;
          case Format::int8:
            for (int k = 0; k < kSpanCols; k++) values[k] = float(codes[k / 4 * 64 + r * 4 + k % 4]) - 128.f;
            break;
          case Format::fp8:
            for (int k = 0; k < kSpanCols; k++) values[k] = fp8.value[codes[k / 4 * 64 + r / 4 * 16 + k % 4 / 2 * 8 + r % 4 * 2 + k % 2]];
            break;
          case Format::bf16:
            for (int k = 0; k < kSpanCols; k++) {
              uint16_t half;
              std::memcpy(&half, codes + k / 2 * 64 + r * 4 + k % 2 * 2, 2);
              const uint32_t bits = uint32_t(half) << 16;
              std::memcpy(values + k, &bits, 4);
            }
        }
        const int group = w.format == Format::int4 ? w.group : w.format == Format::mxfp4 ? 32 : kSpanCols;
        for (int g = 0; g < kSpanCols / group; g++) {
          if (w.format == Format::mxfp4) {
            scales[g] = std::ldexp(1.f, int(stored[g * kBlockRows + r]) - 127);
          } else if (w.format == Format::fp8) {
            std::memcpy(scales + g, head + (size_t(which) * w.spans() + s) * 4, 4);
          } else if (w.format != Format::bf16) {
            uint16_t half;
            std::memcpy(&half, stored + (g * kBlockRows + r) * 2, 2);
            scales[g] = from_half(half);
          }
        }
        float* to = out + (size_t(block) * kBlockRows + r) * w.cols + size_t(s) * kSpanCols;
        for (int k = 0; k < cols; k++) to[k] = values[k] * scales[k / group];
      }
    }
  }
}

MIMO_CLONES
Loss compare_floats(const float* a, const float* b, size_t count, double* largest) {
  constexpr size_t kPiece = 1024;
  Loss loss;
  float top = 0;
  bool sound = true;
  for (size_t from = 0; from < count; from += kPiece) {
    const size_t n = std::min(kPiece, count - from);
    float lanes[16] = {}, squares[16] = {}, tops[16] = {};
    for (size_t i = 0; i < n; i++) {
      const float d = b[from + i] - a[from + i], m = std::fabs(d);
      lanes[i % 16] += d * d, squares[i % 16] += a[from + i] * a[from + i];
      tops[i % 16] = m > tops[i % 16] ? m : tops[i % 16];
    }
    double error = 0;
    for (int i = 0; i < 16; i++) error += lanes[i], loss.weights += squares[i], top = tops[i] > top ? tops[i] : top;
    sound &= !std::isnan(error);
    loss.error += error;
  }
  *largest = sound ? double(top) : NAN;
  return loss;
}

}  // namespace mimo
