// The planner: known answers on machines of a real size, and properties over random models, machines and
// workloads.
#include "policy/planner.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <random>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/config/model_config.h"
#include "core/units.h"
#include "tests/policy/shapes.h"

namespace sluice::policy {
namespace {

using ::testing::HasSubstr;
using testing::opt_spec;
using testing::tensor_sizes;

/// Figures of a data-centre GPU with a fast link, as README has them.
HardwareProfile fast_machine() {
  HardwareProfile h;
  h.link.h2d = {{64, 17}, {1024, 48}, {32768, 53}};
  h.link.d2h = {{64, 17}, {1024, 48}, {32768, 53}};
  h.gpu.products = {{.rows = 1, .tflop_per_sec = 3},
                    {.rows = 64, .tflop_per_sec = 180},
                    {.rows = 512, .tflop_per_sec = 550},
                    {.rows = 4096, .tflop_per_sec = 650}};
  h.gpu.copy_gb_per_sec = 4000;
  h.gpu.attention_gb_per_sec = 2500;
  h.gpu.attention_tflop_per_sec = 300;
  h.cpu.attention = {{KvFormat::kF16, 15, 115, 0}};
  h.disk.read = {{16, 1024, 1.65, 0}};
  h.disk.write = {{16, 1024, 1.87, 0}};
  h.beside_attention = {{15, 0.87, 0.9, 0.95}};
  return h;
}

DeviceTraits gpu_traits() {
  DeviceTraits traits = testing::test_traits();
  traits.activation_dtype = DType::kF16;
  traits.mlp_rows = 2048;
  traits.weight_piece_bytes = 32_MiB;
  traits.workspace_bytes = 64_MiB;
  return traits;
}

PlanProblem problem_of(const ModelSpec& spec, std::int64_t prompt_len, std::int64_t gen_len,
                       std::int64_t count, const PerTier<std::int64_t>& budget) {
  PlanProblem problem;
  problem.spec = spec;
  problem.sizes = tensor_sizes(spec);
  problem.requests.assign(static_cast<std::size_t>(count), {prompt_len, gen_len});
  for (const RequestLength& request : problem.requests)
    problem.workload.add_request(request.prompt_len, request.gen_len);
  problem.traits = gpu_traits();
  problem.hardware = fast_machine();
  problem.budget_bytes = budget;
  return problem;
}

std::string text(const PlanCandidate& plan) {
  return fmt::format(
      "{} {}x{} attention {} depth {} tokens {}: {:.1f} tokens/s", to_string(plan.placement.percents),
      plan.placement.gpu_batch_size, plan.placement.num_gpu_batches, plan.placement.cpu_attention,
      plan.placement.prefetch_depth, plan.placement.max_tokens_per_gpu_batch, plan.tokens_per_sec());
}

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

TEST(Planner, AModelThatFitsTheGpuStaysThere) {
  const auto plan =
      make_plan(problem_of(find_builtin_model("opt-1.3b").value(), 128, 32, 16, {{16_GiB, 64_GiB, 0}}));
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->best.placement.percents.weights[Tier::kGpu], 100) << text(plan->best);
  EXPECT_EQ(plan->best.placement.percents.kv_cache[Tier::kGpu], 100) << text(plan->best);
  EXPECT_EQ(plan->best.placement.block_size(), 16) << text(plan->best);
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

TEST(Planner, ALatencyBoundMakesTheBlockSmaller) {
  PlanProblem problem =
      problem_of(find_builtin_model("opt-6.7b").value(), 256, 16, 128, {{6_GiB, 100_GiB, 0}});
  const auto free = make_plan(problem);
  ASSERT_TRUE(free.has_value());
  const auto slowest = [](const PlanCandidate& plan) {
    double worst = 0;
    double window = 0;
    const auto& passes = plan.simulation.passes;
    for (std::size_t i = 0; i < passes.size(); ++i) {
      window += passes[i].sec - (i >= 16 ? passes[i - 16].sec : 0);
      worst = std::max(worst, window);
    }
    return worst;
  };
  problem.max_latency_sec = 0.7 * slowest(free->best);
  const auto bounded = make_plan(problem);
  ASSERT_TRUE(bounded.has_value());
  EXPECT_LE(slowest(bounded->best), problem.max_latency_sec) << text(bounded->best);
  EXPECT_LE(bounded->best.tokens_per_sec(), free->best.tokens_per_sec() * 1.001);
}

TEST(Planner, SaysHowManyBytesAreMissing) {
  PlanProblem problem = problem_of(find_builtin_model("opt-30b").value(), 512, 32, 4, {{1_GiB, 1_GiB, 0}});
  PlanRefusal refusal;
  EXPECT_FALSE(make_plan(problem, &refusal).has_value());
  EXPECT_THAT(refusal.problem, HasSubstr("more is needed"));
  EXPECT_THAT(refusal.problem, HasSubstr("of 1.00 GiB"));
  EXPECT_THAT(refusal.remedy, HasSubstr("raise --"));
}

// ---- Properties.

PlanProblem random_problem(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  const auto rate = [&](double low, double high) {
    return low * std::pow(high / low, std::uniform_real_distribution<double>(0, 1)(random));
  };
  const std::int64_t heads = pick(1, 4);
  PlanProblem problem;
  problem.spec = opt_spec(pick(1, 4), heads * 64, heads, pick(200, 4000));
  problem.sizes = tensor_sizes(problem.spec);
  const bool ragged = pick(0, 1) == 1;
  const RequestLength all{pick(1, 200), pick(1, 8)};
  for (std::int64_t i = pick(1, 12); i > 0; --i)
    problem.requests.push_back(ragged ? RequestLength{pick(1, 200), pick(1, 8)} : all);
  for (const RequestLength& request : problem.requests)
    problem.workload.add_request(request.prompt_len, request.gen_len);
  problem.traits = testing::test_traits();
  if (pick(0, 1) == 1) problem.traits.activation_dtype = DType::kF16;
  problem.traits.weight_piece_bytes = 256_KiB;
  HardwareProfile& h = problem.hardware;
  h.link.h2d = {{64, rate(0.5, 20)}, {1024, rate(1, 50)}};
  h.link.d2h = {{64, rate(0.5, 20)}, {1024, rate(1, 50)}};
  h.gpu.products = {{.rows = 1, .tflop_per_sec = rate(0.02, 2)},
                    {.rows = 128, .tflop_per_sec = rate(0.5, 100)}};
  h.gpu.copy_gb_per_sec = rate(20, 2000);
  h.gpu.attention_gb_per_sec = rate(10, 1000);
  h.gpu.attention_tflop_per_sec = rate(0.5, 100);
  h.cpu.attention = {{KvFormat::kF16, 4, rate(1, 100), 0}};
  h.disk.read = {{1, 1024, rate(0.1, 5)}};
  h.disk.write = {{1, 1024, rate(0.1, 5)}};
  h.beside_attention = {{4, rate(0.5, 1), rate(0.5, 1), rate(0.5, 1)}};
  h.overheads = {rate(1, 30), rate(1, 10), rate(1, 30), rate(5, 100), rate(10, 300)};
  // From too little for anything to enough for everything.
  Placement everything;
  everything.gpu_batch_size = static_cast<std::int64_t>(problem.requests.size());
  const double most = static_cast<double>(
      make_memory_plan(
          make_run_shape(problem.spec, problem.sizes, everything, problem.workload, problem.traits), true)
          .total[Tier::kGpu]);
  problem.budget_bytes = {{static_cast<std::int64_t>(most * rate(0.25, 1.5)),
                           static_cast<std::int64_t>(most * rate(0.25, 2)),
                           pick(0, 1) == 1 ? static_cast<std::int64_t>(most * rate(0.1, 2)) : 0}};
  if (pick(0, 3) == 0)
    problem.host_bytes =
        static_cast<std::int64_t>(rate(0.5, 1) * static_cast<double>(problem.budget_bytes[Tier::kGpu] +
                                                                     problem.budget_bytes[Tier::kCpu]));
  problem.weights_on_disk = pick(0, 1) == 1;
  problem.step_budget = 400'000;
  return problem;
}

constexpr std::uint64_t kProblems = 2000;

TEST(PlannerProperty, NeverExceedsATier) {
  std::int64_t planned = 0;
  std::int64_t refused = 0;
  for (std::uint64_t seed = 0; seed < kProblems; ++seed) {
    SCOPED_TRACE(seed);
    PlanProblem problem = random_problem(seed);
    problem.step_budget = 3'000;  // the search for what fits, hardly any simulation
    PlanRefusal refusal;
    const auto plan = make_plan(problem, &refusal);
    if (!plan) {
      ++refused;
      EXPECT_THAT(refusal.problem, HasSubstr("more is needed"));
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
    EXPECT_EQ(plan->best.simulation.generated_tokens > 0, true);
  }
  std::printf("%lld planned, %lld refused\n", static_cast<long long>(planned),
              static_cast<long long>(refused));
  EXPECT_GT(planned, static_cast<std::int64_t>(kProblems) / 2);
  EXPECT_GT(refused, 0);
}

TEST(PlannerProperty, MoreMemoryIsNotSlower) {
  constexpr std::uint64_t kCases = 150;
  double worst = 1;
  for (std::uint64_t seed = 0; seed < kCases; ++seed) {
    SCOPED_TRACE(seed);
    PlanProblem problem = random_problem(seed);
    double before = 0;
    for (int step = 0; step < 3; ++step) {
      const auto plan = make_plan(problem);
      EXPECT_TRUE(plan.has_value() || before == 0) << "what fitted fits no more";
      const double now = plan ? plan->best.tokens_per_sec() : 0;
      if (before > 0) worst = std::min(worst, now / before);
      // The search is over a lattice: it may land a little beside its former best.
      EXPECT_GE(now, 0.98 * before) << "step " << step;
      before = std::max(before, now);
      for (const Tier tier : {Tier::kGpu, Tier::kCpu})
        problem.budget_bytes[tier] += problem.budget_bytes[tier] / 4;
      if (problem.host_bytes >= 0) problem.host_bytes += problem.host_bytes / 4;
    }
  }
  std::printf("at worst %.4f of the smaller machine's\n", worst);
}

/// The best of every placement of a grid, by simulation.
PlanCandidate best_of_grid(const PlanProblem& problem, std::int64_t& tried) {
  PlanCandidate best;
  const auto count = static_cast<std::int64_t>(problem.requests.size());
  const bool disk = problem.budget_bytes[Tier::kDisk] > 0 || !problem.weights_on_disk;
  const auto shares = [&](bool with_disk, int step) {
    std::vector<PerTier<int>> found;
    for (int gpu = 100; gpu >= 0; gpu -= step) {
      for (int cpu = 100 - gpu; cpu >= 0; cpu -= step) {
        if (gpu + cpu == 100 || with_disk) found.push_back({{gpu, cpu, 100 - gpu - cpu}});
      }
    }
    return found;
  };
  for (const std::int64_t batches : {1, 2, 3, 4}) {
    for (std::int64_t size = 1; (size == 1 || size * batches < 2 * count) && size <= count; size *= 2) {
      for (const std::int64_t b : {size, div_up(count, batches)}) {
        if (b != size && size != 1) continue;
        for (const PerTier<int>& kv : shares(problem.budget_bytes[Tier::kDisk] > 0, 50)) {
          for (const bool attention : {false, true}) {
            if (attention && kv[Tier::kGpu] == 100) continue;
            for (const PerTier<int>& activations : {PerTier<int>{{100, 0, 0}}, {{0, 100, 0}}}) {
              for (const PerTier<int>& weights : shares(disk, 25)) {
                Placement placement;
                placement.percents = {weights, kv, activations};
                placement.cpu_attention = attention;
                placement.gpu_batch_size = b;
                placement.num_gpu_batches = batches;
                placement.max_tokens_per_gpu_batch = std::max<std::int64_t>(b, 8192);
                const auto played = predict(problem, placement);
                if (!played) continue;
                ++tried;
                if (played->tokens_per_sec() > best.tokens_per_sec()) best = *played;
              }
            }
          }
        }
      }
    }
  }
  return best;
}

TEST(PlannerProperty, ReachesTheBestOfAGrid) {
  constexpr std::uint64_t kCases = 200;
  int compared = 0;
  int below = 0;
  double worst = 2;
  std::int64_t tried = 0;
  for (std::uint64_t seed = 10'000; seed < 10'000 + kCases; ++seed) {
    SCOPED_TRACE(seed);
    const PlanProblem problem = random_problem(seed);
    const PlanCandidate best = best_of_grid(problem, tried);
    const double grid = best.tokens_per_sec();
    const auto plan = make_plan(problem);
    if (grid == 0) continue;
    EXPECT_TRUE(plan.has_value()) << "the grid has a placement that fits";
    if (!plan) continue;
    ++compared;
    const double ratio = plan->best.tokens_per_sec() / grid;
    worst = std::min(worst, ratio);
    if (ratio < 0.98) {
      ++below;
      ADD_FAILURE() << ratio << " of the grid's best with " << text(plan->best)
                    << "; the grid's: " << text(best);
    }
  }
  std::printf("%d compared with %lld placements, %d below 98 %%, the worst %.4f\n", compared,
              static_cast<long long>(tried), below, worst);
  EXPECT_GT(compared, 100);
}

}  // namespace
}  // namespace sluice::policy
