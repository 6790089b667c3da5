// The OpenMP team of all calls, and the thread that owns it.
//
// libgomp gives each thread that starts a parallel region a team of its own, so calls from all of XLA's threads would end in n * n threads. All
// work is therefore handed to one thread, the owner of the only team, one call at a time; callers sleep meanwhile. Nothing here waits for XLA's
// threads, so callers cannot block each other for ever, and the number of threads of a call, hence its rounding, never depends on what else is
// running. The owner also needs no locks for the cache of primitives and for scratch memory.

#pragma once

#include <omp.h>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

namespace team {

class Owner {
 public:
  Owner() {
    std::thread([this] { serve(); }).detach();
  }

  // Run `work` on the owner thread and wait for it; an exception is passed on.
  void run(const std::function<void()> &work) {
    std::lock_guard<std::mutex> one_call(call_);
    std::unique_lock<std::mutex> lock(mutex_);
    work_ = &work;
    changed_.notify_all();
    changed_.wait(lock, [this] { return work_ == nullptr; });
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return work_ != nullptr; });
      try {
        (*work_)();
      } catch (...) {
        error_ = std::current_exception();
      }
      work_ = nullptr;
      changed_.notify_all();
    }
  }

  std::mutex call_, mutex_;
  std::condition_variable changed_;
  const std::function<void()> *work_ = nullptr;
  std::exception_ptr error_;
};

// It lives as long as the process and is never destroyed: at exit its thread may still be alive.
inline Owner &owner() {
  static auto *owner = new Owner;
  return *owner;
}

// The size of the team for a call: at most XLA's threads, OMP_NUM_THREADS, and the cores this process may use. For the owner thread.
inline int size(int64_t xla_threads) {
  static const int64_t limit = omp_get_max_threads();
  return static_cast<int>(std::min(limit, xla_threads));
}

}  // namespace team
