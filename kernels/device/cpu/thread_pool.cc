#include "kernels/device/cpu/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <pthread.h>
#include <sched.h>
#include <system_error>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/mutex.h"

namespace sluice::kernels {
namespace {

// How long a thread without work looks for some before it sleeps. The operators of one layer follow each
// other within a few us. Between two layers' attention a CPU waits some ms for the GPU; waking its threads
// again, one after the other, costs .2 to .6 ms where the attention of a small batch takes 2 (measured on 16
// virtual CPUs).
constexpr std::chrono::microseconds kSpinTime{40};
constexpr std::chrono::microseconds kSpinTimeOfOwnCpu{2000};

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// The longer time only if a CPU is left beside the pool's: lanes and disk threads want one. Other pools,
/// processes and quotas are not seen.
std::chrono::microseconds spin_time(int num_threads) {
  cpu_set_t cpus;
  const bool known = sched_getaffinity(0, sizeof(cpus), &cpus) == 0;
  return known && num_threads < CPU_COUNT(&cpus) ? kSpinTimeOfOwnCpu : kSpinTime;
}

/// Looks for `ready` for at most `time`. Yields now and then, so that with fewer cores than threads the
/// one who holds the work gets to run.
template <class Ready>
bool spin_until(std::chrono::microseconds time, const Ready& ready) {
  const auto deadline = std::chrono::steady_clock::now() + time;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      pause();
    }
    sched_yield();
  } while (std::chrono::steady_clock::now() < deadline);
  return ready();
}

// One parallel_for call. Lives on the caller's stack, linked into the pool's list while it has ranges left.
struct Job {
  void (*function)(const void*, std::int64_t, std::int64_t) = nullptr;
  const void* context = nullptr;
  std::int64_t count = 0, grain = 0;

  std::atomic<std::int64_t> next{0};   // first index nobody took
  std::atomic<int> workers_inside{0};  // changed under the pool's mutex
  std::atomic<bool> failed{false};
  std::exception_ptr failure;  // written by whoever set `failed` first

  Job* previous_job = nullptr;  // the list's links, guarded by the pool's mutex
  Job* next_job = nullptr;

  bool has_ranges() const {
    return next.load(std::memory_order_relaxed) < count && !failed.load(std::memory_order_relaxed);
  }

  void work() noexcept {
    while (has_ranges()) {
      const std::int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= count) return;
      try {
        function(context, begin, std::min(begin + grain, count));
      } catch (...) {
        if (!failed.exchange(true)) failure = std::current_exception();
      }
    }
  }
};

}  // namespace

struct ThreadPool::State {
  explicit State(std::chrono::microseconds spin_time) : spin(spin_time) {}

  const std::chrono::microseconds spin;

  Mutex mutex;
  Condition work_available;
  Condition worker_left;
  Job* first_job SLUICE_GUARDED_BY(mutex) = nullptr;
  Job* last_job SLUICE_GUARDED_BY(mutex) = nullptr;
  bool stopping SLUICE_GUARDED_BY(mutex) = false;
  int num_sleepers SLUICE_GUARDED_BY(mutex) = 0;

  // Jobs so far, and the end; changed under `mutex`. What spinning workers watch.
  std::atomic<std::uint64_t> num_posted{0};

  std::vector<std::thread> workers;  // fixed after construction

  void push_back(Job& job) SLUICE_REQUIRES(mutex) {
    job.previous_job = last_job;
    job.next_job = nullptr;
    (last_job != nullptr ? last_job->next_job : first_job) = &job;
    last_job = &job;
  }

  void unlink(Job& job) SLUICE_REQUIRES(mutex) {
    (job.previous_job != nullptr ? job.previous_job->next_job : first_job) = job.next_job;
    (job.next_job != nullptr ? job.next_job->previous_job : last_job) = job.previous_job;
  }

  /// The job to help, moved to the end of the list so that several callers get helpers in turn.
  Job* pick() SLUICE_REQUIRES(mutex) {
    for (Job* job = first_job; job != nullptr; job = job->next_job) {
      if (!job->has_ranges()) continue;
      if (job != last_job) {
        unlink(*job);
        push_back(*job);
      }
      return job;
    }
    return nullptr;
  }

  void work_loop() {
    mutex.lock();
    while (true) {
      if (Job* job = wait_for_job(); job != nullptr) {
        job->workers_inside.fetch_add(1, std::memory_order_relaxed);
        mutex.unlock();
        job->work();
        mutex.lock();
        // From here on the caller may return and the job be gone: only the pool's own members are touched.
        if (job->workers_inside.fetch_sub(1, std::memory_order_release) == 1) worker_left.notify_all();
      } else {
        mutex.unlock();
        return;
      }
    }
  }

  /// The next job to help; null when the pool stops.
  Job* wait_for_job() SLUICE_REQUIRES(mutex) {
    if (Job* job = pick(); job != nullptr) return job;
    if (stopping) return nullptr;
    const std::uint64_t seen = num_posted.load(std::memory_order_relaxed);
    mutex.unlock();
    spin_until(spin, [&] { return num_posted.load(std::memory_order_relaxed) != seen; });
    mutex.lock();
    while (true) {
      if (Job* job = pick(); job != nullptr) return job;
      if (stopping) return nullptr;
      ++num_sleepers;
      work_available.wait(mutex);
      --num_sleepers;
    }
  }

  void stop_and_join() {
    {
      MutexLock lock(mutex);
      stopping = true;
      num_posted.fetch_add(1, std::memory_order_relaxed);  // ends the search of those that look for work
    }
    work_available.notify_all();
    for (std::thread& worker : workers) worker.join();
  }
};

ThreadPool::ThreadPool(int num_threads) : state_(std::make_unique<State>(spin_time(num_threads))) {
  SLUICE_CHECK(num_threads >= 1 && num_threads <= 4096, Code::kInvalidArgument,
               fmt::format("a thread pool of {} threads", num_threads), "give --threads between 1 and 4096");
  state_->workers.reserve(static_cast<std::size_t>(num_threads - 1));
  try {
    for (int i = 1; i < num_threads; ++i) {
      state_->workers.emplace_back([state = state_.get()] { state->work_loop(); });
      pthread_setname_np(state_->workers.back().native_handle(), fmt::format("sluice-cpu{}", i).c_str());
    }
  } catch (const std::system_error& e) {
    const std::size_t started = state_->workers.size() + 1;
    state_->stop_and_join();
    throw Error(Code::kOutOfMemory,
                fmt::format("thread {} of {} did not start: {}", started, num_threads, e.what()),
                "lower --threads or raise the limit on processes (ulimit -u)");
  }
}

ThreadPool::~ThreadPool() { state_->stop_and_join(); }

int ThreadPool::num_threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::run(std::int64_t count, std::int64_t grain, RangeFunction function, const void* context) {
  SLUICE_ASSERT(grain > 0);
  if (count <= 0) return;
  State& state = *state_;

  Job job;
  job.function = function;
  job.context = context;
  job.count = count;
  job.grain = grain;
  const bool shared = count > grain && !state.workers.empty();
  if (shared) {
    std::int64_t to_wake = 0;
    {
      MutexLock lock(state.mutex);
      state.push_back(job);
      state.num_posted.fetch_add(1, std::memory_order_relaxed);
      to_wake = std::min<std::int64_t>(state.num_sleepers, (count - 1) / grain);
    }
    for (; to_wake > 0; --to_wake) state.work_available.notify_one();
  }

  job.work();

  if (shared) {
    {
      MutexLock lock(state.mutex);
      state.unlink(job);
    }
    // Nobody can join now. Those inside are finishing their last range: usually a matter of microseconds.
    const auto alone = [&] { return job.workers_inside.load(std::memory_order_acquire) == 0; };
    if (!spin_until(state.spin, alone)) {
      MutexLock lock(state.mutex);
      while (!alone()) state.worker_left.wait(state.mutex);
    }
  }
  if (job.failure) std::rethrow_exception(job.failure);
}

}  // namespace sluice::kernels
