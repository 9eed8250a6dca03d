#include "pool.hpp"

#include <chrono>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mimo {
namespace {

constexpr auto kSpin = std::chrono::microseconds(200);
constexpr int kSpinsBeforeYield = 2000;

inline void relax() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// Spin until ready() holds; give the core away now and then, so an oversubscribed machine still gets on.
template <class Ready>
void spin_until(Ready ready) {
  for (int i = 1; !ready(); i++) {
    if (i % kSpinsBeforeYield) relax();
    else std::this_thread::yield();
  }
}

// The processor of a thread of the pool: the n-th this process may use, or -1.
int processor_of(int thread) {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed)) return -1;
  for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; cpu++)
    if (CPU_ISSET(cpu, &allowed) && seen++ == thread) return cpu;
#endif
  (void)thread;
  return -1;
}

void pin(int cpu) {
#if defined(__linux__)
  if (cpu < 0) return;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  pthread_setaffinity_np(pthread_self(), sizeof one, &one);
#endif
  (void)cpu;
}

// Bring the calling thread to a processor and leave it free to go: a caller on a worker's own processor would keep it waiting.
void move_to(int cpu) {
#if defined(__linux__)
  if (cpu < 0 || sched_getcpu() == cpu) return;
  cpu_set_t allowed;
  if (pthread_getaffinity_np(pthread_self(), sizeof allowed, &allowed) || !CPU_ISSET(cpu, &allowed)) return;
  pin(cpu);
  pthread_setaffinity_np(pthread_self(), sizeof allowed, &allowed);
#endif
  (void)cpu;
}

}  // namespace

void Barrier::wait() {
  const unsigned phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    return;
  }
  spin_until([&] { return phase_.load(std::memory_order_acquire) != phase; });
}

Pool::Pool(int threads) : threads_(threads < 1 ? 1 : threads), home_(processor_of(0)), barrier_(threads_) {
  for (int t = 1; t < threads_; t++) workers_.emplace_back([this, t] { work(t); });
}

Pool::~Pool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& w : workers_) w.join();
}

void Pool::run(const std::function<void(int, int, Barrier&)>& job) {
  std::lock_guard<std::mutex> turn(turn_);
  if (threads_ > 1) {
    move_to(home_);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      busy_.store(threads_ - 1, std::memory_order_relaxed);
      epoch_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
  }
  job(0, threads_, barrier_);
  spin_until([&] { return busy_.load(std::memory_order_acquire) == 0; });
}

void Pool::work(int thread) {
  pin(processor_of(thread));
  unsigned seen = 0;
  for (;;) {
    const auto limit = std::chrono::steady_clock::now() + kSpin;
    while (epoch_.load(std::memory_order_acquire) == seen && !stop_ && std::chrono::steady_clock::now() < limit) relax();
    if (epoch_.load(std::memory_order_acquire) == seen) {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || epoch_.load(std::memory_order_relaxed) != seen; });
    }
    if (stop_) return;
    seen++;
    (*job_)(thread, threads_, barrier_);
    busy_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace mimo
