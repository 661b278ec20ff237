#include <algorithm>
#include <functional>
#include <numeric>
#include <random>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "policy/build_pass.h"
#include "policy/check_schedule.h"
#include "tests/policy/pass_driver.h"
#include "tests/policy/scenario.h"
#include "tests/policy/shapes.h"

namespace sluice::policy {
namespace {

using testing::DrivenRequest;
using testing::PassDriver;
using testing::random_scenario;
using testing::Scenario;

struct Judged {
  std::vector<std::string> violations;
  std::int64_t passes = 0, steps = 0;
  std::uint64_t wait_hash = 0;  ///< of all waits of all steps
};

Judged judge(const Scenario& s, const std::function<void(HazardTracker&)>& mutate = {}) {
  const RunShape shape =
      make_run_shape(s.spec, testing::tensor_sizes(s.spec), s.placement, s.workload, testing::test_traits());
  ScheduleBuilder builder(shape);
  if (mutate) mutate(builder.hazards());
  ScheduleChecker checker(shape);
  Schedule schedule;
  schedule.reserve(builder.max_steps());
  builder.build_prologue(schedule);
  checker.add(schedule, nullptr);
  PassDriver driver(shape, s.requests);
  Judged result;
  while (!driver.done()) {
    const Pass& pass = driver.compose();
    EXPECT_FALSE(pass.empty()) << "no progress: " << s.text();
    if (pass.empty()) break;
    builder.build_pass(pass, schedule);
    EXPECT_LE(schedule.steps.size(), builder.max_steps());
    checker.add(schedule, &pass);
    for (const Step& step : schedule.steps) {
      result.wait_hash = result.wait_hash * 1099511628211U + 1;
      for (const Wait& wait : step.wait_list()) {
        result.wait_hash = result.wait_hash * 1099511628211U + static_cast<std::uint64_t>(wait.count * 8) +
                           lane_index(wait.lane);
      }
    }
    driver.advance();
    ++result.passes;
    result.steps += static_cast<std::int64_t>(schedule.steps.size());
    if (result.passes > 2000) {
      ADD_FAILURE() << "does not end: " << s.text();
      break;
    }
  }
  result.violations = checker.violations();
  return result;
}

TEST(ScheduleChecker, AcceptsRandomRaggedPasses) {
  for (std::uint32_t seed = 1; seed <= 150; ++seed) {
    const Scenario s = random_scenario(seed);
    const Judged result = judge(s);
    ASSERT_TRUE(result.violations.empty())
        << "seed " << seed << ", " << s.text() << ": " << result.violations.size()
        << " violations, first: " << result.violations.front();
    ASSERT_GT(result.passes, 0);
  }
}

// A prompt that is only scored fills its seat to the last row, even where that row starts a page.
TEST(PassComposer, ScoresAPromptThatEndsInItsOwnPage) {
  for (const bool cut : {false, true}) {
    Scenario s;
    s.spec = testing::opt_spec(2, 256, 4, 1024);
    s.placement.percents.kv_cache = {{0, 100, 0}};
    s.placement.max_tokens_per_gpu_batch = cut ? 64 : 8192;
    s.requests = {{65, 0, true}};
    s.workload = {.max_prompt_len = 65,
                  .max_gen_len = 0,
                  .max_total_len = 65,
                  .num_requests = 1,
                  .max_logprob_rows = 65};
    const Judged result = judge(s);
    EXPECT_TRUE(result.violations.empty()) << result.violations.front();
    EXPECT_EQ(result.passes, cut ? 2 : 1);
  }
}

/// Passes that the scenario takes, and the KV pages that its seats reserve.
struct RaggedRun {
  std::int64_t passes = 0, pages = 0;
};
RaggedRun run_ragged(std::int64_t gpu_batch_size, bool known_lengths) {
  Scenario s;
  s.spec = testing::opt_spec(1, 256, 4, 1024);
  s.placement.percents.kv_cache = {{0, 100, 0}};
  s.placement.gpu_batch_size = gpu_batch_size;
  s.placement.num_gpu_batches = 2;
  std::mt19937 random(5);
  std::uniform_int_distribution<std::int64_t> prompt(32, 1500), gen(1, 128);
  for (int i = 0; i < 400; ++i) s.requests.push_back({prompt(random), gen(random)});
  for (const DrivenRequest& r : s.requests) s.workload.add_request(r.prompt_len, r.gen_len);
  if (!known_lengths) s.workload.seat_demand.clear();
  const RunShape shape =
      make_run_shape(s.spec, testing::tensor_sizes(s.spec), s.placement, s.workload, testing::test_traits());
  PassDriver driver(shape, s.requests);
  RaggedRun run{0, shape.seats.pages_per_layer[Tier::kCpu]};
  while (!driver.done()) {
    EXPECT_FALSE(driver.compose().empty());
    driver.advance();
    ++run.passes;
  }
  return run;
}

// 400 requests of 32..1500 + 1..128 tokens: in the same memory nearly twice as many sit in seats of their own
// length.
TEST(PassComposer, SeatsOfTheRequestsLengthsTakeFarFewerPasses) {
  const RaggedRun longest = run_ragged(14, false);
  const RaggedRun by_length = run_ragged(25, true);
  EXPECT_LE(by_length.pages, longest.pages);
  RecordProperty("passes_of_longest", std::to_string(longest.passes));  // --gtest_output=json
  RecordProperty("passes_by_length", std::to_string(by_length.passes));
  EXPECT_LT(by_length.passes, 0.62 * static_cast<double>(longest.passes));
}

TEST(PassComposer, ShortRequestsPassOneThatWaitsForALongSeatButNotForEver) {
  Scenario s;
  s.spec = testing::opt_spec(1, 256, 4, 1024);
  s.placement.gpu_batch_size = 3;
  s.requests = {{300, 20}, {300, 20}, {60, 2}, {60, 2}, {60, 2}, {60, 2}};
  for (const DrivenRequest& r : s.requests) s.workload.add_request(r.prompt_len, r.gen_len);
  s.workload.seat_demand = {100, 0, 0, 0, 50};  // two short seats, a long one
  const RunShape shape =
      make_run_shape(s.spec, testing::tensor_sizes(s.spec), s.placement, s.workload, testing::test_traits());
  PassDriver driver(shape, s.requests);
  const auto admitted = [&] {
    std::vector<std::int32_t> waiting;
    for (const Admission& admission : driver.compose().admissions) waiting.push_back(admission.waiting);
    driver.advance();
    return waiting;
  };
  EXPECT_EQ(admitted(), (std::vector<std::int32_t>{0, 2, 3})) << "the second long one waits";
  EXPECT_TRUE(admitted().empty());
  EXPECT_EQ(admitted(), (std::vector<std::int32_t>{1, 2})) << "short seats are refilled";
  for (int pass = 3; pass < 20; ++pass) EXPECT_TRUE(admitted().empty()) << pass;
  EXPECT_EQ(admitted(), std::vector<std::int32_t>{0}) << "the long seat is free again";
}

TEST(PassComposer, TakesTheLongestFirstOnceTheEndOfTheQueueIsInSight) {
  constexpr std::int64_t kSeats = 2, kRequests = 24, kInSight = kWaitingPerSeat * kSeats;
  Scenario s;
  s.spec = testing::opt_spec(1, 256, 4, 1024);
  s.placement.gpu_batch_size = kSeats;
  for (std::int64_t gen = 1; gen <= kRequests; ++gen) s.requests.push_back({40, gen});
  for (const DrivenRequest& r : s.requests) s.workload.add_request(r.prompt_len, r.gen_len);
  s.workload.seat_demand = {1};  // both seats take any request
  const RunShape shape =
      make_run_shape(s.spec, testing::tensor_sizes(s.spec), s.placement, s.workload, testing::test_traits());
  PassDriver driver(shape, s.requests);
  std::vector<std::int64_t> left(kRequests), taken;
  std::iota(left.begin(), left.end(), 1);
  for (; !driver.done(); driver.advance()) {
    const bool in_sight = std::ssize(left) < kInSight;
    const std::vector<Admission>& admissions = driver.compose().admissions;
    const auto first = std::ssize(taken);
    for (const Admission& admission : admissions)
      taken.push_back(left[static_cast<std::size_t>(admission.waiting)]);
    if (in_sight)
      std::sort(taken.begin() + first, taken.end(), std::greater());  // admissions are by place in the queue
    for (auto it = admissions.rbegin(); it != admissions.rend(); ++it) left.erase(left.begin() + it->waiting);
  }
  std::vector<std::int64_t> expected;  // in order while more than kInSight - 1 wait, then the longest
  for (std::int64_t gen = 1; kRequests - gen + 1 >= kInSight; ++gen) expected.push_back(gen);
  const auto in_order = std::ssize(expected);
  for (std::int64_t gen = kRequests; gen > in_order; --gen) expected.push_back(gen);
  EXPECT_EQ(taken, expected);
}

// Takes away one kind of wait at a time, over many scenarios. A kind whose loss changes any schedule must be
// missed.
TEST(ScheduleChecker, NoticesEveryMissingWait) {
  constexpr std::uint32_t kSeeds = 120;
  std::vector<std::uint64_t> baseline;
  for (std::uint32_t seed = 1; seed <= kSeeds; ++seed)
    baseline.push_back(judge(random_scenario(seed)).wait_hash);
  int caught_kinds = 0;
  for (std::size_t r = 0; r < kNumResourceKinds; ++r) {
    for (std::size_t h = 0; h < kNumHazardKinds; ++h) {
      bool changed = false;
      bool caught = false;
      for (std::uint32_t seed = 1; seed <= kSeeds && !caught; ++seed) {
        const Judged result = judge(random_scenario(seed), [&](HazardTracker& tracker) {
          tracker.drop(static_cast<ResourceKind>(r), static_cast<HazardKind>(h));
        });
        changed = changed || result.wait_hash != baseline[seed - 1];
        caught = !result.violations.empty();
      }
      EXPECT_EQ(changed, caught) << "resource " << r << " hazard " << h;
      if (caught) ++caught_kinds;
    }
  }
  EXPECT_GE(caught_kinds, 20);
}

TEST(ScheduleBuilder, PrefetchesTheNextLayerBeforeTheCurrentOneEnds) {
  Scenario s = random_scenario(1);
  s.spec = testing::opt_spec(4, 256, 4, 1024);
  s.placement = {};
  s.placement.percents.weights = {{0, 100, 0}};
  s.placement.gpu_batch_size = 2;
  s.placement.num_gpu_batches = 2;
  s.requests.assign(4, {64, 4, false});
  s.workload = {.max_prompt_len = 64, .max_gen_len = 4, .max_total_len = 68, .num_requests = 4};
  const RunShape shape =
      make_run_shape(s.spec, testing::tensor_sizes(s.spec), s.placement, s.workload, testing::test_traits());
  ScheduleBuilder builder(shape);
  Schedule schedule;
  builder.build_prologue(schedule);
  PassDriver driver(shape, s.requests);
  const Pass& pass = driver.compose();
  builder.build_pass(pass, schedule);
  // No load of layer 3's weights may wait for the end of layer 2, which is two slots away from it only in
  // name: it reuses the slot of layer 1.
  std::int64_t last_post_of_layer2 = 0;
  for (const Step& step : schedule.steps) {
    if (step.kind == StepKind::kPost && step.unit == 2) last_post_of_layer2 = step.seq;
  }
  int loads = 0;
  for (const Step& step : schedule.steps) {
    if (step.kind != StepKind::kLoadWeights || step.unit != 3) continue;
    ++loads;
    for (const Wait& wait : step.wait_list()) {
      if (wait.lane == LaneKind::kGpu) {
        EXPECT_LT(wait.count, last_post_of_layer2);
      }
    }
  }
  EXPECT_GT(loads, 0);
}

TEST(ScheduleBuilder, JoinsTheStepsOfAPassWhoseDataIsAllOnTheGpu) {
  for (const bool resident : {true, false}) {
    Scenario s = random_scenario(1);
    s.spec = testing::opt_spec(4, 256, 4, 1024);
    s.placement = {};
    s.placement.percents = {{{100, 0, 0}}, {{100, 0, 0}}, {{100, 0, 0}}};
    if (!resident) s.placement.percents.weights = {{50, 50, 0}};
    s.placement.gpu_batch_size = 2;
    s.placement.num_gpu_batches = 2;
    s.requests.assign(4, {64, 4, false});
    s.workload = {.max_prompt_len = 64, .max_gen_len = 4, .max_total_len = 68, .num_requests = 4};
    const RunShape shape = make_run_shape(s.spec, testing::tensor_sizes(s.spec), s.placement, s.workload,
                                          testing::test_traits());
    ScheduleBuilder builder(shape);
    Schedule schedule;
    builder.build_prologue(schedule);
    PassDriver driver(shape, s.requests);
    const Pass& pass = driver.compose();
    builder.build_pass(pass, schedule);
    int joined = 0;
    for (const Step& step : schedule.steps) {
      if (!step.joins_next) continue;
      ++joined;
      EXPECT_EQ(step.lane, LaneKind::kGpu);
      EXPECT_LT(step.seq, schedule.last_seq[lane_index(LaneKind::kGpu)]);
      for (const Step& other : schedule.steps) {
        if (other.lane == LaneKind::kGpu && other.seq == step.seq + 1) {
          EXPECT_EQ(other.num_waits, 0);
        }
        for (const Wait& wait : other.wait_list())
          EXPECT_FALSE(wait.lane == LaneKind::kGpu && wait.count == step.seq) << "somebody waits for it";
      }
    }
    // Of two batches' embed, three steps for each of four layers, and head, only these end a group: the first
    // embed, as the second waits for its inputs, and the heads, which results are fetched after.
    const auto steps = static_cast<int>(schedule.lane_steps[lane_index(LaneKind::kGpu)].size());
    EXPECT_EQ(joined, resident ? steps - 3 : 0);
  }
}

}  // namespace
}  // namespace sluice::policy
