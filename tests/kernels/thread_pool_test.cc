#include "kernels/device/cpu/thread_pool.h"

#include <atomic>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace sluice::kernels {
namespace {

using Ranges = std::set<std::pair<std::int64_t, std::int64_t>>;

Ranges ranges_of(ThreadPool& pool, std::int64_t count, std::int64_t grain) {
  std::mutex mutex;
  Ranges ranges;
  pool.parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end) {
    const std::lock_guard lock(mutex);
    EXPECT_TRUE(ranges.emplace(begin, end).second) << "range " << begin << " ran twice";
  });
  return ranges;
}

TEST(ThreadPool, CoversTheRangeOnceInPiecesThatDoNotDependOnThreads) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.num_threads(), threads);
    EXPECT_EQ(ranges_of(pool, 10, 4), (Ranges{{0, 4}, {4, 8}, {8, 10}})) << threads;
    EXPECT_EQ(ranges_of(pool, 4, 4), (Ranges{{0, 4}}));
    EXPECT_EQ(ranges_of(pool, 3, 100), (Ranges{{0, 3}}));
    EXPECT_EQ(ranges_of(pool, 0, 1), Ranges{});
    EXPECT_EQ(ranges_of(pool, -5, 1), Ranges{});
    EXPECT_EQ(ranges_of(pool, 1000, 1).size(), 1000U);
  }
}

TEST(ThreadPool, UsesItsThreads) {
  ThreadPool pool(3);
  // Each of three ranges waits until all have begun, which only three threads can do.
  std::atomic<int> begun{0};
  pool.parallel_for(3, 1, [&](std::int64_t, std::int64_t) {
    ++begun;
    while (begun.load() < 3) std::this_thread::yield();
  });
  EXPECT_EQ(begun.load(), 3);
}

TEST(ThreadPool, WakesAfterSleep) {
  ThreadPool pool(2);
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::atomic<int> begun{0};
    pool.parallel_for(2, 1, [&](std::int64_t, std::int64_t) {
      ++begun;
      while (begun.load() < 2) std::this_thread::yield();
    });
  }
}

TEST(ThreadPool, SeveralCallersShareTheWorkers) {
  ThreadPool pool(3);
  std::atomic<std::int64_t> total{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int i = 0; i < 300; ++i) {
        std::atomic<std::int64_t> sum{0};
        pool.parallel_for(64, 3, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t j = begin; j < end; ++j) sum += j;
        });
        // All ranges of this call are done when it returns.
        ASSERT_EQ(sum.load(), 64 * 63 / 2);
        total += sum;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(total.load(), 4 * 300 * (64 * 63 / 2));
}

TEST(ThreadPool, NestedCallsFinish) {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    std::atomic<int> leaves{0};
    pool.parallel_for(8, 1, [&](std::int64_t, std::int64_t) {
      pool.parallel_for(8, 1, [&](std::int64_t, std::int64_t) {
        pool.parallel_for(4, 1, [&](std::int64_t, std::int64_t) { ++leaves; });
      });
    });
    EXPECT_EQ(leaves.load(), 8 * 8 * 4);
  }
}

TEST(ThreadPool, RethrowsAfterAllBodiesStopped) {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    std::atomic<int> inside{0};
    const auto run = [&] {
      pool.parallel_for(100, 1, [&](std::int64_t begin, std::int64_t) {
        ++inside;
        if (begin % 10 == 3) {
          --inside;
          throw std::runtime_error("range failed");
        }
        std::this_thread::yield();
        --inside;
      });
    };
    for (int i = 0; i < 20; ++i) {
      EXPECT_THROW(run(), std::runtime_error);
      EXPECT_EQ(inside.load(), 0);
    }
    EXPECT_EQ(ranges_of(pool, 100, 7).size(), 15U) << "the pool is of no use after a failure";
  }
}

TEST(ThreadPool, RefusesSizesAndGrainsThatMakeNoSense) {
  EXPECT_THROW(ThreadPool(0), Error);
  EXPECT_THROW(ThreadPool(-1), Error);
  EXPECT_THROW(ThreadPool(5000), Error);
  ThreadPool pool(1);
  EXPECT_THROW(pool.parallel_for(1, 0, [](std::int64_t, std::int64_t) {}), Error);
}

}  // namespace
}  // namespace sluice::kernels
