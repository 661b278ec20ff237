#include "tests/policy/planner_properties.h"

#include <cstdio>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/policy/planner_problems.h"

namespace sluice::policy::testing {
namespace {

using ::testing::HasSubstr;

constexpr double kEnough = 0.98;  // of the best of a grid, or of what less memory gave

/// Larger is better. A run that keeps the latency bound is better than any that does not.
double worth(const PlanProblem& problem, const PlanCandidate& plan) {
  const double excess =
      problem.max_latency_sec > 0 ? plan.simulation.longest_request_sec / problem.max_latency_sec : 0;
  return excess > 1 ? -excess : plan.tokens_per_sec();
}

/// Shares of three tiers that add up to 100, in steps.
std::vector<PerTier<int>> shares(int step, bool with_disk) {
  std::vector<PerTier<int>> found;
  for (int gpu = 100; gpu >= 0; gpu -= step) {
    for (int cpu = 100 - gpu; cpu >= 0; cpu -= step) {
      if (gpu + cpu == 100 || with_disk) found.push_back({{gpu, cpu, 100 - gpu - cpu}});
    }
  }
  return found;
}

/// The values of each axis. Nothing here knows the planner's own lattice.
struct GridAxes {
  std::vector<PerTier<int>> weights, kv_cache, activations;
  std::vector<bool> cpu_attention;
  std::vector<std::int64_t> num_gpu_batches, prefetch_depth, max_tokens;
  std::vector<std::int64_t> batch_sizes(std::int64_t batches) const {
    std::vector<std::int64_t> sizes = all_sizes;
    if (to_fill > 0) sizes.push_back(div_up(to_fill, batches));
    return sizes;
  }
  std::vector<std::int64_t> all_sizes;
  std::int64_t to_fill = 0;  ///< requests
};

GridAxes axes_of(const PlanProblem& problem, Grid grid) {
  const bool fine = grid == Grid::kFine;
  const bool kv_disk = problem.budget_bytes[Tier::kDisk] > 0;
  const bool weight_disk = kv_disk || !problem.weights_on_disk;
  GridAxes axes;
  axes.weights = shares(fine && !weight_disk ? 10 : 25, weight_disk);
  axes.kv_cache = shares(fine && !kv_disk ? 20 : 50, kv_disk);
  axes.activations = {PerTier<int>{{100, 0, 0}}, {{0, 100, 0}}};
  axes.cpu_attention = {false, true};
  axes.num_gpu_batches = {1, 2, 3, 4};
  axes.all_sizes = {1, 2, 4, 8};
  axes.to_fill = std::ssize(problem.requests);
  axes.prefetch_depth = {2};
  axes.max_tokens = {8192};
  if (fine) {
    axes.prefetch_depth = {2, 4};
    axes.max_tokens = {64, 8192};
  }
  const PlanChoices& choices = problem.choices;
  const auto only = [](auto& axis, const auto& stated) { axis = {stated}; };
  if (choices.weights) only(axes.weights, *choices.weights);
  if (choices.kv_cache) only(axes.kv_cache, *choices.kv_cache);
  if (choices.activations) only(axes.activations, *choices.activations);
  if (choices.cpu_attention) only(axes.cpu_attention, *choices.cpu_attention);
  if (choices.num_gpu_batches > 0) only(axes.num_gpu_batches, choices.num_gpu_batches);
  if (choices.gpu_batch_size > 0) {
    only(axes.all_sizes, choices.gpu_batch_size);
    axes.to_fill = 0;
  }
  return axes;
}

struct BestOfGrid {
  PlanCandidate plan;
  std::int64_t tried = 0;  ///< that fit
};

/// By simulation of every placement of the grid that fits.
BestOfGrid best_of_grid(const PlanProblem& problem, Grid grid) {
  const GridAxes axes = axes_of(problem, grid);
  BestOfGrid best;
  Placement placement;
  placement.mixing = problem.choices.mixing;
  placement.prefetch = problem.choices.prefetch;
  placement.kv_format = problem.choices.kv_format;
  const auto try_placement = [&] {
    const auto played = predict(problem, placement);
    if (!played) return;
    if (best.tried++ == 0 || worth(problem, *played) > worth(problem, best.plan)) best.plan = *played;
  };
  const auto try_rest = [&] {
    for (const PerTier<int>& weights : axes.weights) {
      placement.percents.weights = weights;
      for (const std::int64_t depth : axes.prefetch_depth) {
        placement.prefetch_depth = depth;
        for (const std::int64_t tokens : axes.max_tokens) {
          placement.max_tokens_per_gpu_batch = std::max(tokens, placement.gpu_batch_size);
          try_placement();
        }
      }
    }
  };
  for (const std::int64_t batches : axes.num_gpu_batches) {
    placement.num_gpu_batches = batches;
    for (const std::int64_t size : axes.batch_sizes(batches)) {
      if (problem.choices.gpu_batch_size == 0 && size * batches >= 2 * std::ssize(problem.requests) &&
          size > 1)
        continue;
      placement.gpu_batch_size = size;
      for (const PerTier<int>& kv : axes.kv_cache) {
        placement.percents.kv_cache = kv;
        for (const bool attention : axes.cpu_attention) {
          if (attention && kv[Tier::kGpu] == 100 && axes.cpu_attention.size() > 1) continue;
          placement.cpu_attention = attention;
          for (const PerTier<int>& activations : axes.activations) {
            placement.percents.activations = activations;
            try_rest();
          }
        }
      }
    }
  }
  return best;
}

}  // namespace

void expect_no_tier_exceeded(Seeds seeds) {
  std::int64_t planned = 0;
  for (std::uint64_t seed = seeds.first; seed < seeds.first + seeds.count; ++seed) {
    SCOPED_TRACE(seed);
    PlanProblem problem = random_problem(seed);
    problem.step_budget = 3'000;  // the search for what fits, hardly any simulation
    PlanRefusal refusal;
    const auto plan = make_plan(problem, &refusal);
    if (!plan) {
      EXPECT_THAT(refusal.problem, HasSubstr("more is needed"));
      EXPECT_THAT(refusal.remedy, HasSubstr("raise"));
      continue;
    }
    ++planned;
    const Placement& placement = plan->best.placement;
    validate(placement);
    const MemoryPlan memory = make_memory_plan(
        make_run_shape(problem.spec, problem.sizes, placement, problem.workload, problem.traits),
        problem.weights_on_disk);
    for (const Tier tier : kTiers)
      EXPECT_LE(memory.total[tier], problem.budget_bytes[tier]) << to_string(memory);
    if (problem.host_bytes >= 0) {
      EXPECT_LE(memory.total[Tier::kGpu] + memory.total[Tier::kCpu], problem.host_bytes);
    }
    EXPECT_GT(plan->best.simulation.generated_tokens, 0);
  }
  const auto count = static_cast<std::int64_t>(seeds.count);
  std::printf("%lld planned, %lld refused\n", static_cast<long long>(planned),
              static_cast<long long>(count - planned));
  EXPECT_GT(planned, count / 2);
  EXPECT_LT(planned, count);
}

void expect_monotone_in_memory(Seeds seeds) {
  double worst = 2;
  double worst_with_bound = 2;
  std::int64_t compared = 0;
  std::int64_t with_bound = 0;
  for (std::uint64_t seed = seeds.first; seed < seeds.first + seeds.count; ++seed) {
    SCOPED_TRACE(seed);
    PlanProblem problem = random_problem(seed);
    std::optional<PlanCandidate> before;
    for (int step = 0; step < 4; ++step) {
      const auto plan = make_plan(problem);
      EXPECT_TRUE(plan.has_value() || !before) << "what fitted fits no more";
      if (!plan) break;
      if (before) {
        ++compared;
        with_bound += problem.max_latency_sec > 0 ? 1 : 0;
        const double now = worth(problem, plan->best);
        const double then = worth(problem, *before);
        double& least = problem.max_latency_sec > 0 ? worst_with_bound : worst;
        if (then > 0) least = std::min(least, now / then);
        EXPECT_GE(now, then > 0 ? kEnough * then : then / kEnough)
            << fmt::format("seed {}, step {}: {}, then {}", seed, step, text(*before), text(plan->best));
      }
      if (!before || worth(problem, plan->best) > worth(problem, *before)) before = plan->best;
      for (const Tier tier : kTiers) problem.budget_bytes[tier] += problem.budget_bytes[tier] / 4;
      if (problem.host_bytes >= 0) problem.host_bytes += problem.host_bytes / 4;
    }
  }
  std::printf(
      "%lld steps, at worst %.4f of the smaller machine's; %lld with a latency bound, %.4f at worst\n",
      static_cast<long long>(compared), worst, static_cast<long long>(with_bound), worst_with_bound);
  EXPECT_GT(compared, static_cast<std::int64_t>(seeds.count));
}

void expect_best_of_grid(Seeds seeds, Grid grid) {
  std::uint64_t compared = 0;
  int below = 0;
  double worst = 2;
  std::int64_t tried = 0;
  for (std::uint64_t seed = seeds.first; compared < seeds.count; ++seed) {
    SCOPED_TRACE(seed);
    ASSERT_LT(seed, seeds.first + 4 * seeds.count) << "hardly any problem has a placement";
    const PlanProblem problem = random_problem(seed);
    const BestOfGrid best = best_of_grid(problem, grid);
    if (best.tried == 0) continue;
    const auto plan = make_plan(problem);
    ++compared;
    tried += best.tried;
    EXPECT_TRUE(plan.has_value()) << "the grid has a placement that fits: " << text(best.plan);
    if (!plan) continue;
    const double reached = worth(problem, plan->best);
    const double there = worth(problem, best.plan);
    if (there > 0) worst = std::min(worst, reached / there);
    if (reached < (there > 0 ? kEnough * there : there / kEnough)) {
      ++below;
      ADD_FAILURE() << reached << " with " << text(plan->best) << "; the grid has " << there << " with "
                    << text(best.plan);
    }
  }
  std::printf("%llu compared with %lld placements, %d below 98 %%, the worst %.4f\n",
              static_cast<unsigned long long>(compared), static_cast<long long>(tried), below, worst);
}

}  // namespace sluice::policy::testing
