// The planner: known answers on machines of a real size.
#include "policy/planner.h"

#include <chrono>
#include <cstdio>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/config/model_config.h"
#include "core/units.h"
#include "tests/policy/planner_problems.h"

namespace sluice::policy {
namespace {

using ::testing::HasSubstr;
using testing::opt_spec;
using testing::problem_of;
using testing::text;

TEST(Planner, Opt30bIn16GibIsBoundByTheLink) {
  const PlanProblem problem =
      problem_of(find_builtin_model("opt-30b").value(), 512, 32, 88, {{16_GiB, 112_GiB, 0}});
  const auto start = std::chrono::steady_clock::now();
  const auto plan = make_plan(problem);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  ASSERT_TRUE(plan.has_value());
  std::printf("%s, %lld estimated, %lld simulated, %.2f s\n", text(plan->best).c_str(),
              static_cast<long long>(plan->num_estimated), static_cast<long long>(plan->num_simulated),
              took.count());
  for (const PlanCandidate& other : plan->others) std::printf("  %s\n", text(other).c_str());
  EXPECT_TRUE(plan->best.placement.cpu_attention);
  EXPECT_EQ(plan->best.placement.percents.weights[Tier::kDisk], 0);
  // What people found by hand for this work.
  Placement by_hand;
  by_hand.percents = parse_percents({18, 82, 0, 100, 100, 0});
  by_hand.gpu_batch_size = 44;
  by_hand.num_gpu_batches = 2;
  by_hand.cpu_attention = true;
  by_hand.max_tokens_per_gpu_batch = 2816;
  const auto stated = predict(problem, by_hand);
  ASSERT_TRUE(stated.has_value());
  std::printf("by hand %s\n", text(*stated).c_str());
  EXPECT_GE(plan->best.tokens_per_sec(), 0.999 * stated->tokens_per_sec());
}

PlanProblem opt_30b_with_disk(std::int64_t cpu_bytes) {
  PlanProblem problem =
      problem_of(find_builtin_model("opt-30b").value(), 512, 32, 88, {{16_GiB, cpu_bytes, 200_GiB}});
  problem.weights_on_disk = true;
  problem.step_budget = 4'000'000;
  return problem;
}

// A hundredth of the weights on disk leaves room for a few more sequences, which is worth less than the
// disk's rate is certain.
TEST(Planner, TheDiskIsLeftAloneWhereItGainsLittle) {
  const PlanProblem problem = opt_30b_with_disk(92_GiB);
  const PlanResult plan = make_plan(problem).value();
  EXPECT_FALSE(uses_disk(plan.best.placement)) << text(plan.best);
  ASSERT_TRUE(plan.other_disk_use.has_value()) << text(plan.best);
  EXPECT_TRUE(uses_disk(plan.other_disk_use->placement)) << text(*plan.other_disk_use);
  const double gain = plan.other_disk_use->tokens_per_sec() / plan.best.tokens_per_sec();
  EXPECT_GT(gain, 1) << "or it would not be mentioned";
  EXPECT_LT(gain, kLeastDiskGain);
  // What one more GiB would bring is not what the disk would.
  const PlanCandidate improved = improve_plan(problem, plan.best).value();
  EXPECT_FALSE(uses_disk(improved.placement)) << text(improved);
}

TEST(Planner, TheDiskIsUsedWhereItGainsMuch) {
  const PlanResult plan = make_plan(opt_30b_with_disk(54_GiB)).value();
  EXPECT_TRUE(uses_disk(plan.best.placement)) << text(plan.best);
  ASSERT_TRUE(plan.other_disk_use.has_value()) << text(plan.best);
  EXPECT_FALSE(uses_disk(plan.other_disk_use->placement)) << text(*plan.other_disk_use);
  EXPECT_GE(plan.best.tokens_per_sec(), kLeastDiskGain * plan.other_disk_use->tokens_per_sec());
}

TEST(Planner, TheDiskIsUsedWhereMemoryDoesNotHoldTheModel) {
  const PlanResult plan = make_plan(opt_30b_with_disk(30_GiB)).value();
  EXPECT_TRUE(uses_disk(plan.best.placement)) << text(plan.best);
  EXPECT_FALSE(plan.other_disk_use.has_value()) << text(*plan.other_disk_use);
}

TEST(Planner, WhatIsStatedToRestOnDiskDoes) {
  PlanProblem problem = opt_30b_with_disk(100_GiB);
  problem.choices.weights = PerTier<int>{{20, 79, 1}};
  const PlanResult plan = make_plan(problem).value();
  EXPECT_EQ(plan.best.placement.percents.weights, *problem.choices.weights);
  EXPECT_FALSE(plan.other_disk_use.has_value());
}

TEST(Planner, AModelThatFitsTheGpuStaysThere) {
  const auto plan =
      make_plan(problem_of(find_builtin_model("opt-1.3b").value(), 128, 32, 16, {{16_GiB, 64_GiB, 0}}));
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->best.placement.percents.weights[Tier::kGpu], 100) << text(plan->best);
  EXPECT_EQ(plan->best.placement.percents.kv_cache[Tier::kGpu], 100) << text(plan->best);
  EXPECT_EQ(plan->best.placement.block_size(), 16) << text(plan->best);
}

TEST(Planner, ThePageTableOfPinnedMemoryLiesInTheGpuBudget) {
  PlanProblem problem = problem_of(opt_spec(8, 512, 8), 100, 8, 12, {{1_GiB, 512_GiB, 1_GiB}});
  const PerTier<std::int64_t> bytes{{600_MiB, 256_GiB, 3}};
  EXPECT_EQ(needed_bytes(problem, bytes, Tier::kGpu), 600_MiB);
  EXPECT_TRUE(fits(problem, bytes));
  problem.holds_page_table = true;
  EXPECT_EQ(needed_bytes(problem, bytes, Tier::kGpu), 600_MiB + 512_MiB) << "8 bytes for every 4 KiB";
  EXPECT_EQ(needed_bytes(problem, bytes, Tier::kCpu), 256_GiB);
  EXPECT_EQ(needed_bytes(problem, bytes, Tier::kDisk), 3);
  EXPECT_FALSE(fits(problem, bytes));
  EXPECT_TRUE(fits(problem, {{512_MiB, 256_GiB, 3}}));
}

TEST(Planner, StatedChoicesAreKept) {
  PlanProblem problem = problem_of(opt_spec(8, 512, 8), 100, 8, 12, {{200_MiB, 400_MiB, 0}});
  problem.choices.weights = PerTier<int>{{0, 100, 0}};
  problem.choices.kv_cache = PerTier<int>{{50, 50, 0}};
  problem.choices.cpu_attention = false;
  problem.choices.num_gpu_batches = 3;
  const auto plan = make_plan(problem);
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->best.placement.percents.weights, *problem.choices.weights);
  EXPECT_EQ(plan->best.placement.percents.kv_cache, *problem.choices.kv_cache);
  EXPECT_FALSE(plan->best.placement.cpu_attention);
  EXPECT_EQ(plan->best.placement.num_gpu_batches, 3);
}

TEST(Planner, ALatencyBoundThatCanBeKeptIs) {
  PlanProblem problem =
      problem_of(find_builtin_model("opt-6.7b").value(), 256, 16, 64, {{6_GiB, 100_GiB, 0}});
  problem.step_budget = 3'000'000;
  const auto plan_with = [&](double max_latency_sec) {
    problem.max_latency_sec = max_latency_sec;
    return make_plan(problem).value().best;
  };
  const auto slowest = [&](const PlanCandidate& plan) { return plan.simulation.longest_request_sec; };
  const PlanCandidate free = plan_with(0);
  const double least = slowest(plan_with(1e-6));  // cannot be kept: the search comes as close as it can
  EXPECT_LT(least, slowest(free));
  double rate = 0;
  for (const double part : {0.01, 0.2, 1.0}) {
    const double bound = least + part * (slowest(free) - least);
    const PlanCandidate bounded = plan_with(bound);
    EXPECT_LE(slowest(bounded), bound) << text(bounded);
    EXPECT_GE(bounded.tokens_per_sec(), 0.995 * rate) << "a looser bound costs nothing";
    rate = bounded.tokens_per_sec();
  }
  EXPECT_LE(rate, 1.005 * free.tokens_per_sec());
}

// 8 threads attend at half the rate of 15 and leave the link alone, which 15 halve.
TEST(Planner, FewerThreadsAttendWhereManySlowTheLink) {
  PlanProblem problem =
      problem_of(find_builtin_model("opt-30b").value(), 512, 32, 24, {{16_GiB, 112_GiB, 0}});
  problem.step_budget = 4'000'000;
  problem.hardware.cpu.attention = {{KvFormat::kF16, 8, 60, 0}, {KvFormat::kF16, 15, 115, 0}};
  problem.hardware.beside_attention = {{8, 1, 1, 1}, {15, 0.5, 0.5, 1}};
  const PlanCandidate fewer = make_plan(problem).value().best;
  EXPECT_TRUE(fewer.placement.cpu_attention) << text(fewer);
  EXPECT_EQ(fewer.attention_threads, 8) << text(fewer);
  problem.choices.attention_threads = 15;
  const PlanCandidate stated = make_plan(problem).value().best;
  EXPECT_GT(fewer.tokens_per_sec(), 1.05 * stated.tokens_per_sec()) << text(stated);
  EXPECT_EQ(predict(problem, fewer.placement).value().attention_threads, 15);
  problem.choices.attention_threads = 0;
  problem.hardware.beside_attention = {{8, 1, 1, 1}, {15, 1, 1, 1}};
  EXPECT_EQ(make_plan(problem).value().best.attention_threads, 0) << "15 are what a run takes by itself";
}

TEST(Planner, SaysHowManyBytesAreMissing) {
  PlanProblem problem = problem_of(find_builtin_model("opt-30b").value(), 512, 32, 4, {{1_GiB, 1_GiB, 0}});
  PlanRefusal refusal;
  EXPECT_FALSE(make_plan(problem, &refusal).has_value());
  EXPECT_THAT(refusal.problem, HasSubstr("more is needed"));
  EXPECT_THAT(refusal.problem, HasSubstr("of 1.00 GiB"));
  EXPECT_THAT(refusal.remedy, HasSubstr("raise --"));
}

}  // namespace
}  // namespace sluice::policy
