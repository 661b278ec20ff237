// The switch that takes prefetch away: weights wait for the GPU to come to their unit, and nothing else
// changes.
#include <array>
#include <map>
#include <random>
#include <tuple>

#include <gtest/gtest.h>

#include "policy/build_pass.h"
#include "policy/check_schedule.h"
#include "policy/simulate.h"
#include "tests/policy/pass_driver.h"
#include "tests/policy/scenario.h"
#include "tests/policy/shapes.h"

namespace sluice::policy {
namespace {

using testing::opt_spec;
using testing::PassDriver;
using testing::plain_machine;
using testing::random_scenario;
using testing::Scenario;

/// All schedules of a run, prologue first.
std::vector<Schedule> schedules_of(const Scenario& s) {
  const RunShape shape =
      make_run_shape(s.spec, testing::tensor_sizes(s.spec), s.placement, s.workload, testing::test_traits());
  ScheduleBuilder builder(shape);
  std::vector<Schedule> all(1);
  builder.build_prologue(all.back());
  for (PassDriver driver(shape, s.requests); !driver.done(); driver.advance()) {
    const Pass& pass = driver.compose();
    builder.build_pass(pass, all.emplace_back());
  }
  return all;
}

bool moves_weights(const Step& step) {
  return step.kind == StepKind::kLoadWeights || step.kind == StepKind::kReadWeights;
}

std::int64_t wait_for(const Step& step, LaneKind lane) {
  for (const Wait& wait : step.wait_list()) {
    if (wait.lane == lane) return wait.count;
  }
  return 0;
}

/// Weights on CPU and disk for four layers, four sequences in two GPU batches.
Scenario streamed_scenario(bool cpu_attention) {
  Scenario s;
  s.spec = testing::opt_spec(4, 256, 4, 1024);
  s.placement.percents.weights = {{0, 50, 50}};
  s.placement.percents.kv_cache = {{0, 100, 0}};
  s.placement.cpu_attention = cpu_attention;
  s.placement.gpu_batch_size = 2;
  s.placement.num_gpu_batches = 2;
  s.requests.assign(4, {64, 4, false});
  s.workload = {.max_prompt_len = 64, .max_gen_len = 4, .max_total_len = 68, .num_requests = 4};
  return s;
}

// The transfers of a unit wait for the gpu step right before the unit's first one, in every pass, and for no
// later one; with prefetch none of them does.
TEST(ScheduleBuilder, WithoutPrefetchWeightsWaitForTheStepBeforeTheirUnits) {
  for (const bool cpu_attention : {false, true}) {
    for (const bool prefetch : {false, true}) {
      Scenario s = streamed_scenario(cpu_attention);
      s.placement.prefetch = prefetch;
      SCOPED_TRACE(s.text());
      const std::vector<Schedule> all = schedules_of(s);
      EXPECT_EQ(all.front().steps.empty(), !prefetch) << "nothing is moved before the first pass";
      std::map<std::int64_t, std::vector<Step>> transfers;  // of a unit that has not come
      std::int64_t units = 0;
      std::int64_t at_work = -1;
      for (const Schedule& schedule : all) {
        for (const Step& step : schedule.steps) {
          if (moves_weights(step)) transfers[step.unit].push_back(step);
          if (step.lane != LaneKind::kGpu || step.kind == StepKind::kPost || step.unit == at_work) continue;
          at_work = step.unit;
          // The first embedding brings the output unit's weights along; later ones find those of the head.
          if (step.kind == StepKind::kEmbed && step.seq > 1) continue;
          ++units;
          const std::int64_t before = step.seq - 1;
          const auto of_unit =
              transfers.extract(step.kind == StepKind::kEmbed ? s.spec.num_layers + 1 : step.unit);
          ASSERT_FALSE(of_unit.empty());
          std::array<std::int64_t, kNumLanes> first{-1, -1, -1, -1, -1, -1, -1, -1};
          for (const Step& transfer : of_unit.mapped()) {
            const std::int64_t count = wait_for(transfer, LaneKind::kGpu);
            if (std::int64_t& of_lane = first[lane_index(transfer.lane)]; of_lane < 0) of_lane = count;
            EXPECT_LE(count, before);
            if (prefetch && before > 0) {
              EXPECT_LT(count, before);
            }
          }
          if (prefetch) continue;
          EXPECT_TRUE(transfers.empty()) << "another unit is on its way, too";
          for (const LaneKind lane : {LaneKind::kH2d, LaneKind::kDiskRead})
            EXPECT_EQ(first[lane_index(lane)], before) << lane_name(lane) << " unit " << step.unit;
        }
      }
      EXPECT_EQ(units, 1 + (std::ssize(all) - 1) * (s.spec.num_layers + 1));
      EXPECT_EQ(transfers.empty(), !prefetch) << "what comes for a next pass";
    }
  }
}

// Only when weights move differs: each lane's other steps are the same, and so are the weights' pieces up to
// those that are ahead at the end of the run.
TEST(ScheduleBuilder, WithoutPrefetchTheStepsAreTheSame) {
  using Named = std::tuple<StepKind, int, int, int, std::int64_t>;
  const auto named = [](const std::vector<Schedule>& all, LaneKind lane, bool weights) {
    std::vector<Named> steps;
    for (const Schedule& schedule : all) {
      for (const Step& step : schedule.steps) {
        if (step.lane == lane && moves_weights(step) == weights)
          steps.emplace_back(step.kind, step.unit, step.gpu_batch, step.piece, step.bytes);
      }
    }
    return steps;
  };
  std::size_t ahead = 0;
  for (std::uint32_t seed = 1; seed <= 60; ++seed) {
    Scenario s = random_scenario(seed);
    s.placement.prefetch = true;
    const std::vector<Schedule> with = schedules_of(s);
    s.placement.prefetch = false;
    const std::vector<Schedule> without = schedules_of(s);
    for (std::size_t i = 0; i < kNumLanes; ++i) {
      const auto lane = static_cast<LaneKind>(i);
      EXPECT_EQ(named(with, lane, false), named(without, lane, false)) << "seed " << seed;
      std::vector<Named> early = named(with, lane, true);
      const std::vector<Named> late = named(without, lane, true);
      ASSERT_LE(late.size(), early.size()) << "seed " << seed;
      ahead += early.size() - late.size();
      early.resize(late.size());
      EXPECT_EQ(early, late) << "seed " << seed;
    }
  }
  EXPECT_GT(ahead, 0U);
}

TEST(ScheduleChecker, NoticesWeightsThatAreAheadOfTheirUnit) {
  for (const bool cpu_attention : {false, true}) {
    Scenario s = streamed_scenario(cpu_attention);
    const std::vector<Schedule> ahead = schedules_of(s);
    s.placement.prefetch = false;
    const RunShape shape = make_run_shape(s.spec, testing::tensor_sizes(s.spec), s.placement, s.workload,
                                          testing::test_traits());
    ScheduleChecker checker(shape);
    checker.add(ahead[0], nullptr);
    PassDriver driver(shape, s.requests);
    checker.add(ahead[1], &driver.compose());
    ASSERT_FALSE(checker.violations().empty());
    EXPECT_NE(checker.violations().front().find("comes ahead of its unit"), std::string::npos)
        << checker.violations().front();
  }
}

// ---- The time that it takes.

Placement streamed(std::vector<int> percents, std::int64_t gpu_batch_size, std::int64_t num_gpu_batches) {
  Placement placement;
  placement.percents = parse_percents(percents);
  placement.gpu_batch_size = gpu_batch_size;
  placement.num_gpu_batches = num_gpu_batches;
  return placement;
}

/// For requests of 8 + 9 tokens.
RunShape shape_of(const ModelSpec& spec, const Placement& placement, std::int64_t requests) {
  const Workload work{.max_prompt_len = 8, .max_gen_len = 9, .max_total_len = 17, .num_requests = requests};
  return make_run_shape(spec, testing::tensor_sizes(spec), placement, work, testing::test_traits());
}

/// Weights come under the computation of the unit before, or only then when the GPU has come to them: a
/// decode pass takes the larger of both times, or their sum.
TEST(Simulate, WithoutPrefetchAPassTakesLoadsAndComputation) {
  const ModelSpec spec = opt_spec(8, 256, 4, 1000);
  HardwareProfile hardware = plain_machine();
  hardware.gpu.products = {{.rows = 1, .tflop_per_sec = 0.02}};  // at every number of rows
  hardware.gpu.copy_gb_per_sec = 1e9;
  hardware.gpu.attention_gb_per_sec = 1e9;
  hardware.gpu.attention_tflop_per_sec = 1e9;
  const std::vector<RequestLength> requests(8, {8, 9});
  for (const std::int64_t batches : {1, 4}) {
    for (const bool prefetch : {true, false}) {
      Placement placement = streamed({0, 100, 100, 0, 100, 0}, 8 / batches, batches);
      placement.prefetch = prefetch;
      const RunShape shape = shape_of(spec, placement, 8);
      const Simulation run = simulate(shape, hardware, requests);
      std::int64_t streamed = 0;
      for (const UnitStream& unit : shape.units) streamed += unit.bytes();
      const double load = static_cast<double>(streamed) / 10e9;
      const double compute = 2 * 8 * (8 * 12.0 * 256 * 256 + 1000.0 * 256) / 0.02e12;
      ASSERT_GT(compute, load);
      ASSERT_GT(load, 0.2 * compute);
      const double expected = prefetch ? compute : load + compute;
      for (std::size_t pass = 2; pass < run.passes.size(); ++pass)
        EXPECT_NEAR(run.passes[pass].sec, expected, 0.01 * expected) << pass << " prefetch " << prefetch;
    }
  }
}

TEST(Simulate, WithoutPrefetchTheDiskIsReadBetweenTheUnits) {
  const ModelSpec spec = opt_spec(8, 256, 4, 1000);
  Placement placement = streamed({0, 0, 100, 0, 100, 0}, 2, 1);
  placement.prefetch = false;
  const RunShape shape = shape_of(spec, placement, 2);
  HardwareProfile hardware = plain_machine();
  hardware.gpu.products = {{.rows = 1, .tflop_per_sec = 0.0016}};
  const Simulation run = simulate(shape, hardware, std::vector<RequestLength>(2, {8, 9}));
  double expected = 2 * 2 * (8 * 12.0 * 256 * 256 + 1000.0 * 256) / 0.0016e12;
  for (const UnitStream& unit : shape.units) {
    expected += static_cast<double>(unit.disk_bytes) / 1e9;
    // The last piece of a unit goes on to the GPU alone.
    if (unit.disk_bytes > 0)
      expected += static_cast<double>((unit.disk_bytes - 1) % shape.traits.weight_piece_bytes + 1) / 10e9;
  }
  for (std::size_t pass = 2; pass < run.passes.size(); ++pass)
    EXPECT_NEAR(run.passes[pass].sec, expected, 0.02 * expected) << pass;
}

}  // namespace
}  // namespace sluice::policy
