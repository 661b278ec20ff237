#include "kernels/device/step_clock.h"

#include <cmath>
#include <random>

#include <gtest/gtest.h>

namespace sluice::kernels {
namespace {

constexpr std::int64_t kEvents = 768;

/// A device whose clock runs `drift` seconds a second too fast, and which says how long after one event
/// another came as CUDA does: a float of milliseconds, in steps of half a microsecond.
struct DriftingDevice {
  double drift = 0;
  double since(double from_sec, double to_sec) const {
    const auto ticks = [&](double sec) { return std::floor((1 + drift) * sec * 2e6); };
    return static_cast<double>(static_cast<float>((ticks(to_sec) - ticks(from_sec)) * 0.5e-3)) * 1e-3;
  }
};

class StepClockDrift : public ::testing::TestWithParam<double> {};

// Ten hours of steps of 20 ms on average. Half are seen at once, but for the time that a thread takes to
// wake.
TEST_P(StepClockDrift, KnowsTheEndsOfStepsForHours) {
  const DriftingDevice device{GetParam()};
  const double origin = 5000;
  StepClock clock(origin + 20e-6, kEvents);
  std::mt19937_64 random(7);
  const auto uniform = [&](double low, double high) {
    return low + (high - low) * static_cast<double>(random() % 100000) * 1e-5;
  };
  double now = 0;
  double last_end = 0;
  double worst = 0;
  double before = 0;
  for (std::int64_t seq = 1; now < 10 * 3600; ++seq) {
    now += uniform(1e-3, 39e-3);
    const double seen = now + (seq % 2 == 0 ? uniform(5e-6, 100e-6) : 0.2);
    const std::int64_t reference = clock.reference(seq);
    const double end = clock.end_of(seq, device.since(reference > 0 ? last_end : 0, now), origin + seen);
    ASSERT_EQ(reference, seq - 1);
    ASSERT_GE(end, before);
    ASSERT_LE(end, origin + seen + 1e-9);
    worst = std::max(worst, std::abs(end - origin - now));
    before = end;
    last_end = now;
  }
  EXPECT_LT(worst, 120e-6);  // the longest wake, and what may be unlearnt until the next short one
}

INSTANTIATE_TEST_SUITE_P(Rates, StepClockDrift, ::testing::Values(0.0, 3e-5, -3e-5, 8e-5, -8e-5));

TEST(StepClock, CountsFromAnEventThatStillStands) {
  StepClock clock(100, kEvents);
  EXPECT_EQ(clock.reference(1), 0);
  const double first = clock.end_of(1, 2, 200);
  EXPECT_NEAR(first, 102, 1e-3);
  EXPECT_EQ(clock.reference(1), 1);
  EXPECT_EQ(clock.end_of(1, 0, 300), first) << "seen again";
  EXPECT_EQ(clock.reference(kEvents), 1);
  EXPECT_EQ(clock.reference(kEvents + 1), 0) << "its event may be another step's by then";
  EXPECT_NEAR(clock.end_of(kEvents + 1, 7, 300), 107, 1e-3);
  EXPECT_EQ(clock.reference(2), 0) << "another user of the stream counts from the start";
  EXPECT_NEAR(clock.end_of(2, 8, 300), 108, 1e-3);
  EXPECT_EQ(clock.reference(3), 2);
}

TEST(StepClock, AnEndIsNotAfterItWasSeen) {
  StepClock clock(100, kEvents);  // the origin was seen a second late
  EXPECT_NEAR(clock.end_of(1, 2, 101), 101, 1e-9);
  EXPECT_NEAR(clock.end_of(2, 3, 500), 104, 1e-3) << "learnt from the end before";
}

}  // namespace
}  // namespace sluice::kernels
