#include "kernels/device/cpu/probe.h"

// This file is compiled once per SIMD target; the order of these includes makes it so.
// clang-format off
#include "kernels/device/cpu/simd_targets.h"
#define HWY_TARGET_INCLUDE "kernels/device/cpu/probe.cc"
#include "hwy/foreach_target.h"
#include "kernels/device/cpu/simd_inl.h"
// clang-format on

#include <algorithm>
#include <atomic>

#include "core/error.h"
#include "core/units.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::kernels::HWY_NAMESPACE {

/// Exclusive or of `size` bytes, a multiple of 8 vectors.
std::uint64_t read_range(const std::byte* memory, std::int64_t size) {
  const hn::ScalableTag<std::uint64_t> d;
  constexpr auto kWords = static_cast<std::int64_t>(hn::MaxLanes(d));
  const auto* words = reinterpret_cast<const std::uint64_t*>(memory);
  auto a = hn::Zero(d), b = a, c = a, e = a;
  for (const auto* end = words + size / 8; words < end; words += 8 * kWords) {
    a = hn::Xor(a, hn::Xor(hn::LoadU(d, words), hn::LoadU(d, words + 4 * kWords)));
    b = hn::Xor(b, hn::Xor(hn::LoadU(d, words + kWords), hn::LoadU(d, words + 5 * kWords)));
    c = hn::Xor(c, hn::Xor(hn::LoadU(d, words + 2 * kWords), hn::LoadU(d, words + 6 * kWords)));
    e = hn::Xor(e, hn::Xor(hn::LoadU(d, words + 3 * kWords), hn::LoadU(d, words + 7 * kWords)));
  }
  HWY_ALIGN std::uint64_t lanes[kWords];
  hn::Store(hn::Xor(hn::Xor(a, b), hn::Xor(c, e)), d, lanes);
  std::uint64_t result = 0;
  for (const std::uint64_t lane : lanes) result ^= lane;
  return result;
}

std::uint64_t read_all_any(std::span<const std::byte> memory, ThreadPool& pool) {
  std::atomic<std::uint64_t> result{0};
  pool.parallel_for(static_cast<std::int64_t>(memory.size()), 1_MiB,
                    [&](std::int64_t begin, std::int64_t end) {
                      result ^= read_range(memory.data() + begin, end - begin);
                    });
  return result;
}

constexpr std::int64_t kAddsPerRound = 1600;  // x 12 chains, 2 a cycle: about 10 us

float multiply_adds(std::int64_t rounds) {
  const F32 d;
  constexpr int kChains = 12;  // enough to hide a latency of 4 to 6 at two a cycle, and fits 16 registers
  V32 sum[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sum[i] = hn::Set(d, static_cast<float>(i));
  const V32 factor = hn::Set(d, 0.999F);
  const V32 term = hn::Set(d, 0.5F);
  for (std::int64_t r = 0; r < rounds * kAddsPerRound; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sum[i] = hn::MulAdd(sum[i], factor, term);
  }
  V32 total = sum[0];
  for (int i = 1; i < kChains; ++i) total = hn::Add(total, sum[i]);
  return sum_of_lanes(total);
}

double run_multiply_adds_any(std::int64_t rounds, ThreadPool& pool) {
  std::atomic<int> nonsense{0};
  pool.parallel_for(pool.num_threads(), 1, [&](std::int64_t, std::int64_t) {
    if (multiply_adds(rounds) < 0) ++nonsense;  // the result is used, so the loop stays
  });
  SLUICE_ASSERT(nonsense == 0);
  return 2.0 * 12 * static_cast<double>(kLanes * kAddsPerRound * rounds * pool.num_threads());
}

}  // namespace sluice::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::kernels {
namespace {
HWY_EXPORT(read_all_any);
HWY_EXPORT(run_multiply_adds_any);
}  // namespace

std::uint64_t read_all(std::span<const std::byte> memory, ThreadPool& pool) {
  SLUICE_ASSERT(memory.size() % 4096 == 0);
  return HWY_DYNAMIC_DISPATCH(read_all_any)(memory, pool);
}

double run_multiply_adds(std::int64_t rounds, ThreadPool& pool) {
  return HWY_DYNAMIC_DISPATCH(run_multiply_adds_any)(rounds, pool);
}

}  // namespace sluice::kernels
#endif
