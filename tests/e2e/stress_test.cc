// Every lane is slowed down at random, and memory that is about to be rewritten is filled with NaN: the
// answer stays the same and the recorded timelines hold no violation.
#include <chrono>
#include <thread>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/sampling/philox.h"
#include "tests/e2e/lane_bytes.h"
#include "tests/e2e/small_model.h"

namespace sluice {
namespace {

using offload::RunHooks;
using policy::Step;

/// One step in six sleeps up to 2 ms; which ones is a pure function of the seed, the lane and the step.
offload::StepHook random_delays(std::uint32_t seed) {
  return [seed](const Step& step) {
    const PhiloxCounter bits = philox4x32_10(
        {static_cast<std::uint32_t>(step.seq), static_cast<std::uint32_t>(step.lane), 0, 0}, {seed, 0});
    if (bits[0] % 6 == 0) std::this_thread::sleep_for(std::chrono::microseconds(bits[1] % 2000));
  };
}

struct Setting {
  std::vector<int> percents;
  std::int64_t num_gpu_batches = 2;
  bool cpu_attention = false;
  KvFormat kv_format = KvFormat::kF16;
  bool prefetch = true;
};

const std::vector<Setting>& settings() {
  static const std::vector<Setting> all = {
      {{100, 0, 100, 0, 100, 0}, 2},
      {{0, 100, 0, 100, 0, 100}, 2, true},
      {{0, 100, 0, 100, 0, 100}, 3},
      {{0, 0, 0, 0, 0, 0}, 1},
      {{0, 0, 0, 0, 0, 0}, 3, true},
      {{30, 30, 35, 30, 34, 33}, 3},
      {{20, 40, 10, 40, 0, 50}, 2, true},
      {{50, 0, 0, 50, 50, 0}, 2, true, KvFormat::kF32},
      {{20, 40, 10, 40, 0, 50}, 3, true, KvFormat::kF16, false},
      {{0, 0, 0, 0, 0, 0}, 2, false, KvFormat::kF16, false},
  };
  return all;
}

class Stress : public ::testing::TestWithParam<std::tuple<std::size_t, std::uint32_t>> {};

TEST_P(Stress, DelaysAndPoisonChangeNothing) {
  const auto& [index, seed] = GetParam();
  const Setting& setting = settings()[index];
  const ModelSpec spec = testing::small_spec_with_eos();
  const std::vector<offload::Request> requests = testing::ragged_requests(spec.vocab_size);
  policy::Placement resident = testing::placed({100, 0, 100, 0, 100, 0}, 2, 1, false);
  resident.kv_format = setting.kv_format;
  const testing::RunOutcome expected = testing::run_requests(testing::synthetic(spec), resident, requests);

  policy::Placement placement =
      testing::placed(setting.percents, 2, setting.num_gpu_batches, setting.cpu_attention);
  placement.kv_format = setting.kv_format;
  placement.prefetch = setting.prefetch;
  placement.max_tokens_per_gpu_batch = 150;
  RunHooks hooks;
  hooks.poison = offload::Poison::kOn;
  hooks.before_step = random_delays(seed);
  const testing::RunOutcome outcome =
      testing::run_requests(testing::synthetic(spec), placement, requests, nullptr, &hooks);
  EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
  EXPECT_EQ(testing::first_difference(expected.results, outcome.results), "");
  EXPECT_EQ(testing::counted_lane_bytes(outcome), testing::expected_lane_bytes(outcome));
  if (setting.prefetch) return;
  placement.prefetch = true;
  const testing::RunOutcome with =
      testing::run_requests(testing::synthetic(spec), placement, requests, nullptr, &hooks);
  EXPECT_EQ(testing::first_difference(with.results, outcome.results), "");
}

INSTANTIATE_TEST_SUITE_P(Small, Stress,
                         ::testing::Combine(::testing::Range(std::size_t{0}, settings().size()),
                                            ::testing::Values(1U, 2U, 3U)));

// One slow lane at a time: whoever should wait for it does.
TEST(Stress, OneSlowLaneChangesNothing) {
  const ModelSpec spec = testing::small_spec_with_eos();
  std::vector<offload::Request> requests = testing::ragged_requests(spec.vocab_size);
  requests.resize(9);
  const testing::RunOutcome expected = testing::run_requests(
      testing::synthetic(spec), testing::placed({100, 0, 100, 0, 100, 0}, 2, 1, false), requests);
  for (std::size_t lane = 0; lane < policy::kNumLanes; ++lane) {
    SCOPED_TRACE(lane_name(static_cast<policy::LaneKind>(lane)));
    RunHooks hooks;
    hooks.poison = offload::Poison::kOn;
    hooks.before_step = [lane](const Step& step) {
      if (policy::lane_index(step.lane) == lane) std::this_thread::sleep_for(std::chrono::microseconds(300));
    };
    policy::Placement placement = testing::placed({20, 40, 10, 40, 0, 50}, 2, 2, /*cpu_attention=*/true);
    placement.max_tokens_per_gpu_batch = 150;
    const testing::RunOutcome outcome =
        testing::run_requests(testing::synthetic(spec), placement, requests, nullptr, &hooks);
    EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
    EXPECT_EQ(testing::first_difference(expected.results, outcome.results), "");
  }
}

}  // namespace
}  // namespace sluice
