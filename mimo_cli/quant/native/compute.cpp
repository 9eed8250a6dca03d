#include "compute.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>

namespace mimo {
namespace {

// Contiguous share of `units` for one thread: equal bytes, since units are equal.
struct Share {
  int begin, end;
  Share(int units, int thread, int threads) : begin(int(int64_t(units) * thread / threads)), end(int(int64_t(units) * (thread + 1) / threads)) {}
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

// Few tokens stream the weights once; many reuse a block of rows from cache, so they take turns over small pieces.
constexpr int kPrefillTokens = 16;
constexpr int kPieceBlocks = 8;

}  // namespace

void Compute::size(Activations& a, const Matrix& w, const float* x, size_t count, int tokens, Precision precision) {
  const bool integer = reads_integers(w.format);
  int planes = 2;
  if (integer) planes = precision == Precision::int8 ? 1 : 2;
  else if (precision != Precision::exact || (x && exact_in_bfloat16(x, count))) planes = 1;
  a.resize(tokens, w.spans(), planes, integer);
}

void Compute::linear(const Matrix& w, const float* x, float* y, int tokens, Precision precision) {
  size(inputs_, w, x, size_t(tokens) * w.cols, tokens, precision);
  if (int(place_.size()) < tokens) place_.resize(tokens);
  std::iota(place_.begin(), place_.begin() + tokens, 0);
  std::atomic<int> next{0};
  pool_.run([&](int thread, int threads, Barrier& barrier) {
    for (int t = thread; t < tokens; t += threads) isa_->prepare(x + size_t(t) * w.cols, w.cols, t, w, &inputs_);
    barrier.wait();
    RowsTask task{&w, 0, 0, &inputs_, place_.data(), place_.data(), nullptr, tokens, y, size_t(w.rows), Epilogue::store};
    if (tokens < kPrefillTokens) {
      const Share share(w.blocks(), thread, threads);
      task.block_begin = share.begin, task.block_end = share.end;
      isa_->rows(task);
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

  pool_.run([&](int thread, int threads, Barrier& barrier) {
    for (int t = thread; t < tokens; t += threads) isa_->prepare(x + size_t(t) * hidden, hidden, t, first, &inputs_);
    barrier.wait();
    auto gate_up = [&](int e, int from, int to) {
      const int b = begin_[e];
      isa_->rows({&experts[e].gate_up, from, to, &inputs_, token_.data() + b, place_.data() + b, nullptr, begin_[e + 1] - b, intermediate,
                  size_t(width), Epilogue::swiglu});
    };
    if (tokens < kPrefillTokens) {
      const Share share(used * up_blocks, thread, threads);  // one flat range over all experts: no thread waits for a small one
      for (int u = share.begin; u < share.end;) {
        const int from = u % up_blocks, to = std::min(up_blocks, from + share.end - u);
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
      const Share share(down_blocks, thread, threads);
      if (share.end > share.begin) down(share.begin, share.end);
    } else {
      for (int from; (from = next_down.fetch_add(kPieceBlocks, std::memory_order_relaxed)) < down_blocks;)
        down(from, std::min(from + kPieceBlocks, down_blocks));
    }
  });
}

}  // namespace mimo
