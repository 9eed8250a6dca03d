#include "compute.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>

namespace mimo {
namespace {

// Units of equal bytes, a contiguous share for each thread, so that each reads one long stream. A thread takes a quarter of
// what is left of its own share at a time, at least `piece`. One that is done takes pieces from the end of another's share:
// nobody waits for one that woke late or lost its processor for a while.
class Shares {
 public:
  Shares(int units, int threads) : left_(size_t(threads)) {
    for (int t = 0; t < threads; t++) left_[t].range = range(uint32_t(int64_t(units) * t / threads), uint32_t(int64_t(units) * (t + 1) / threads));
  }
  bool take(int thread, int piece, int* from, int* to) {
    for (int i = 0, threads = int(left_.size()); i < threads; i++) {
      std::atomic<uint64_t>& left = left_[(thread + i) % threads].range;
      for (uint64_t now = left.load(std::memory_order_relaxed);;) {
        const uint32_t begin = uint32_t(now >> 32), end = uint32_t(now);
        if (begin == end) break;
        const uint32_t size = std::min(std::max(uint32_t(piece), i ? 0 : (end - begin) / 4), end - begin);
        const uint64_t rest = i ? range(begin, end - size) : range(begin + size, end);
        if (!left.compare_exchange_weak(now, rest, std::memory_order_relaxed)) continue;
        *from = int(i ? end - size : begin), *to = *from + int(size);
        return true;
      }
    }
    return false;
  }

 private:
  static uint64_t range(uint32_t begin, uint32_t end) { return uint64_t(begin) << 32 | end; }
  struct alignas(64) Share {
    std::atomic<uint64_t> range{0};
  };
  std::vector<Share> left_;
};

bool exact_in_bfloat16(const float* x, size_t count) {
  uint32_t lost = 0;
  for (size_t i = 0; i < count; i++) {
    uint32_t bits;
    std::memcpy(&bits, x + i, 4);
    lost |= bits & 0xffff;
  }
  return !lost;
}

// Many tokens reuse a block of rows from cache, so threads take turns over small pieces of one matrix.
constexpr int kPrefillTokens = 16;
constexpr int kPieceBlocks = 8;
constexpr int kStealBlocks = 4;  // some hundred kilobytes: ten to twenty microseconds

}  // namespace

void Compute::size(Activations& a, const Matrix& w, const float* x, size_t count, int tokens, Precision precision) {
  const bool integer = reads_integers(w.format);
  int planes = 3;
  if (integer && precision != Precision::exact) planes = precision == Precision::int8 ? 1 : 2;
  if (!integer && (precision != Precision::exact || (x && exact_in_bfloat16(x, count)))) planes = 1;
  a.resize(tokens, w.spans(), planes, integer);
}

void Compute::linear(const Matrix& w, const float* x, float* y, int tokens, Precision precision) {
  size(inputs_, w, x, size_t(tokens) * w.cols, tokens, precision);
  if (int(place_.size()) < tokens) place_.resize(tokens);
  std::iota(place_.begin(), place_.begin() + tokens, 0);
  std::atomic<int> next{0};
  Shares shares(w.blocks(), pool_.threads());
  pool_.run([&](int thread, int threads, Barrier& barrier) {
    for (int t = thread; t < tokens; t += threads) isa_->prepare(x + size_t(t) * w.cols, w.cols, t, w, &inputs_);
    barrier.wait();
    RowsTask task{&w, 0, 0, &inputs_, place_.data(), place_.data(), nullptr, tokens, y, size_t(w.rows), Epilogue::store};
    if (tokens < kPrefillTokens) {
      while (shares.take(thread, kStealBlocks, &task.block_begin, &task.block_end)) isa_->rows(task);
      return;
    }
    for (;;) {
      task.block_begin = next.fetch_add(kPieceBlocks, std::memory_order_relaxed);
      if (task.block_begin >= w.blocks()) return;
      task.block_end = std::min(task.block_begin + kPieceBlocks, w.blocks());
      isa_->rows(task);
    }
  });
}

void Compute::float_linear(const float* w, int rows, int cols, const float* x, float* y, int tokens) {
  pool_.run([&](int thread, int threads, Barrier&) {
    const int from = int(int64_t(rows) * thread / threads), to = int(int64_t(rows) * (thread + 1) / threads);
    for (int t = 0; t < tokens; t++) isa_->dot_rows(w + size_t(from) * cols, to - from, cols, x + size_t(t) * cols, y + size_t(t) * rows + from);
  });
}

void Compute::moe(const std::vector<Expert>& experts, const int32_t* pair_token, const int32_t* pair_expert, const float* pair_weight,
                  int pairs, int tokens, const float* x, float* out, Precision precision) {
  const int count = int(experts.size());
  if (!pairs || !count) return;
  const Matrix& first = experts[0].gate_up;
  const int hidden = first.cols, width = first.rows;

  // Sort the (token, expert) pairs by expert, keeping the order of tokens.
  begin_.assign(count + 1, 0);
  for (int p = 0; p < pairs; p++) begin_[pair_expert[p] + 1]++;
  for (int e = 0; e < count; e++) begin_[e + 1] += begin_[e];
  token_.resize(pairs), factor_.resize(pairs), place_.resize(std::max(pairs, int(place_.size())));
  std::iota(place_.begin(), place_.begin() + pairs, 0);
  std::vector<int32_t> cursor(begin_.begin(), begin_.end() - 1);
  for (int p = 0; p < pairs; p++) {
    const int at = cursor[pair_expert[p]]++;
    token_[at] = pair_token[p], factor_[at] = pair_weight[p];
  }

  active_.clear();
  for (int e = 0; e < count; e++)
    if (begin_[e + 1] > begin_[e]) active_.push_back(e);
  const int used = int(active_.size());

  size(inputs_, first, x, size_t(tokens) * hidden, tokens, precision);
  size(hidden_, experts[0].down, nullptr, 0, pairs, precision);
  float* intermediate = intermediate_.ensure(size_t(pairs) * width);
  const int up_blocks = first.blocks(), down_blocks = experts[0].down.blocks();
  const int up_pieces = (up_blocks + kPieceBlocks - 1) / kPieceBlocks;
  std::atomic<int> next_up{0}, next_down{0};
  Shares up_shares(used * up_blocks, pool_.threads()), down_shares(down_blocks, pool_.threads());

  pool_.run([&](int thread, int threads, Barrier& barrier) {
    for (int t = thread; t < tokens; t += threads) isa_->prepare(x + size_t(t) * hidden, hidden, t, first, &inputs_);
    barrier.wait();
    auto gate_up = [&](int e, int from, int to) {
      const int b = begin_[e];
      isa_->rows({&experts[e].gate_up, from, to, &inputs_, token_.data() + b, place_.data() + b, nullptr, begin_[e + 1] - b, intermediate,
                  size_t(width), Epilogue::swiglu});
    };
    if (tokens < kPrefillTokens) {
      for (int u, end; up_shares.take(thread, kStealBlocks, &u, &end);)  // one flat range over all experts
        while (u < end) {
          const int from = u % up_blocks, to = std::min(up_blocks, from + end - u);
          gate_up(active_[u / up_blocks], from, to);
          u += to - from;
        }
    } else {
      for (int u; (u = next_up.fetch_add(1, std::memory_order_relaxed)) < used * up_pieces;) {
        const int from = u % up_pieces * kPieceBlocks;
        gate_up(active_[u / up_pieces], from, std::min(from + kPieceBlocks, up_blocks));
      }
    }
    barrier.wait();
    for (int p = thread; p < pairs; p += threads) isa_->prepare(intermediate + size_t(p) * width, width, p, experts[0].down, &hidden_);
    barrier.wait();
    // A thread owns output rows and adds the experts in order, so no sum depends on who was faster.
    auto down = [&](int from, int to) {
      for (const int e : active_) {
        const int b = begin_[e];
        isa_->rows({&experts[e].down, from, to, &hidden_, place_.data() + b, token_.data() + b, factor_.data() + b, begin_[e + 1] - b, out,
                    size_t(hidden), Epilogue::accumulate});
      }
    };
    if (tokens < kPrefillTokens) {
      for (int from, to; down_shares.take(thread, kStealBlocks, &from, &to);) down(from, to);
    } else {
      for (int from; (from = next_down.fetch_add(kPieceBlocks, std::memory_order_relaxed)) < down_blocks;)
        down(from, std::min(from + kPieceBlocks, down_blocks));
    }
  });
}

}  // namespace mimo
