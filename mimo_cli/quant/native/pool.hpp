// A pool of threads that stays: one job at a time, split by the job itself.
//
// The caller is thread 0. Workers spin briefly after a job, since the next one usually follows within microseconds
// (one layer, two regions), then sleep. Workers are pinned; the caller is moved off their
// processors and may leave again.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace mimo {

// All threads of a job meet here; reusable.
class Barrier {
 public:
  explicit Barrier(int threads) : threads_(threads) {}
  void wait();

 private:
  const int threads_;
  std::atomic<int> arrived_{0};
  std::atomic<unsigned> phase_{0};
};

class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return threads_; }
  // Run job(thread, threads, barrier) on all threads; returns when all are done. Calls from several threads take turns.
  void run(const std::function<void(int, int, Barrier&)>& job);

 private:
  void work(int thread);

  const int threads_, home_;  // home_: where the caller is brought, out of the way of the workers
  Barrier barrier_;
  std::vector<std::thread> workers_;
  std::mutex turn_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<unsigned> epoch_{0};
  std::atomic<int> busy_{0};
  std::atomic<bool> stop_{false};
  const std::function<void(int, int, Barrier&)>* job_ = nullptr;
};

}  // namespace mimo
