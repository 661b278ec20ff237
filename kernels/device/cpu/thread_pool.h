// A pool of a given number of threads for data-parallel loops. The caller of parallel_for takes part, so a
// pool of size 1 has no threads of its own. Several threads may call parallel_for at once: calls share the
// workers. Nothing is allocated per call.
#pragma once

#include <cstdint>
#include <memory>

namespace sluice::kernels {

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const;

  /// Calls body(begin, end) for disjoint ranges that cover [0, count), each at most `grain` long, and
  /// returns when all are done. The ranges do not depend on the number of threads, so a body whose result
  /// depends on its range alone is reproducible. The first exception is rethrown after all bodies stopped.
  template <class Body>
  void parallel_for(std::int64_t count, std::int64_t grain, const Body& body) {
    const auto call = [](const void* context, std::int64_t begin, std::int64_t end) {
      (*static_cast<const Body*>(context))(begin, end);
    };
    run(count, grain, call, &body);
  }

 private:
  using RangeFunction = void (*)(const void* context, std::int64_t begin, std::int64_t end);
  void run(std::int64_t count, std::int64_t grain, RangeFunction function, const void* context);

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice::kernels
