#include "kernels/device/cpu/probe.h"

#include <cstring>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/kernels/kernel_support.h"

namespace sluice::kernels {
namespace {

TEST(Probe, ReadsEveryByteOnce) {
  std::mt19937_64 random(1);
  std::vector<std::uint64_t> words((3 << 20) / 8 + 512);
  std::uint64_t expected = 0;
  for (std::uint64_t& word : words) expected ^= word = random();
  testing::for_each_target([&] {
    ThreadPool pool(3);
    EXPECT_EQ(read_all(std::as_bytes(std::span(words)), pool), expected);
    EXPECT_EQ(read_all({}, pool), 0U);
  });
  ThreadPool pool(1);
  EXPECT_THROW(read_all(std::as_bytes(std::span(words)).first(100), pool), Error);
}

TEST(Probe, CountsMultiplyAdds) {
  ThreadPool one(1);
  ThreadPool two(2);
  const double flops = run_multiply_adds(3, one);
  EXPECT_GT(flops, 0);
  EXPECT_EQ(run_multiply_adds(6, one), 2 * flops);
  EXPECT_EQ(run_multiply_adds(3, two), 2 * flops);
}

}  // namespace
}  // namespace sluice::kernels
