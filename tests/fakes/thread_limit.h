// A system that runs out of threads: those above a limit do not start. Counts the ones that run. Thread-safe
// but for making threads.
#pragma once

#include <atomic>
#include <functional>
#include <system_error>
#include <thread>
#include <utility>

#include "kernels/device/cpu/thread_starter.h"

namespace sluice::kernels::fakes {

class ThreadLimit {
 public:
  explicit ThreadLimit(int limit) : left_(limit) {}

  /// Refers to this limit, which outlives the threads.
  ThreadMaker maker() {
    return [this](std::function<void()> work) {
      if (left_ == 0)
        throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
      --left_;
      ++running_;
      return std::jthread([this, work = std::move(work)] {
        work();
        --running_;
      });
    };
  }
  int running() const { return running_.load(); }

 private:
  int left_;
  std::atomic<int> running_{0};
};

}  // namespace sluice::kernels::fakes
