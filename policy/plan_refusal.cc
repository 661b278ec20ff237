#include "policy/plan_refusal.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "core/units.h"
#include "policy/fill_memory.h"
#include "policy/plan_lattice.h"

namespace sluice::policy::detail {

namespace {

// A byte of GPU and of CPU memory in bytes of disk, roughly as they are paid for.
constexpr std::int64_t kGpuPrice = 20;
constexpr std::int64_t kCpuPrice = 5;

/// The smallest run, in the few ways in which it can be placed.
std::vector<Placement> smallest_placements(const PlanProblem& problem) {
  const PlanChoices& choices = problem.choices;
  Placement placement;
  placement.mixing = choices.mixing;
  placement.prefetch = choices.prefetch;
  placement.kv_format = choices.kv_format;
  placement.gpu_batch_size = std::max<std::int64_t>(1, choices.gpu_batch_size);
  placement.num_gpu_batches = std::max<std::int64_t>(1, choices.num_gpu_batches);
  placement.max_tokens_per_gpu_batch =
      std::max(placement.gpu_batch_size,
               choices.max_tokens_per_gpu_batch > 0
                   ? choices.max_tokens_per_gpu_batch
                   : std::min(kLeastTokens, placement.gpu_batch_size * problem.workload.max_prompt_len));
  std::vector<Placement> placements;
  for (const PerTier<int>& weights : {PerTier<int>{{0, 0, 100}}, {{0, 100, 0}}, {{100, 0, 0}}}) {
    for (const PerTier<int>& kv : {PerTier<int>{{0, 100, 0}}, {{100, 0, 0}}, {{0, 0, 100}}}) {
      placement.percents.weights = choices.weights.value_or(weights);
      placement.percents.kv_cache = choices.kv_cache.value_or(kv);
      placement.percents.activations = choices.activations.value_or(PerTier<int>{{100, 0, 0}});
      placement.cpu_attention = choices.cpu_attention.value_or(kv[Tier::kGpu] == 0);
      placements.push_back(placement);
    }
  }
  return placements;
}

/// Whether a block of the least size fits in any of the ways that the search looks at.
bool anything_fits(PlanProblem problem, WeightFill& weights) {
  PlanChoices& choices = problem.choices;
  choices.num_gpu_batches = std::max<std::int64_t>(1, choices.num_gpu_batches);
  Placement placement = smallest_placements(problem).front();
  for (const PlanPoint& kind : PlanLattice(problem).kinds()) {
    placement.cpu_attention = kind.cpu_attention;
    placement.percents.kv_cache = kind.kv_cache;
    for (const PerTier<int>& activations : {kind.activations, PerTier<int>{{0, 100, 0}}}) {
      placement.percents.activations = choices.activations.value_or(activations);
      if (weights.fill(problem, placement)) return true;
    }
  }
  return false;
}

/// The largest of 1..most for which something fits, 0 if none; `change` makes a problem that large.
template <class Change>
std::int64_t largest_that_fits(const PlanProblem& problem, std::int64_t most, Change change) {
  WeightFill weights(problem);
  std::int64_t fitting = 0;
  std::int64_t too_large = most + 1;
  while (too_large - fitting > 1) {
    const std::int64_t middle = fitting + (too_large - fitting) / 2;
    PlanProblem smaller = problem;
    change(smaller, middle);
    (anything_fits(smaller, weights) ? fitting : too_large) = middle;
  }
  return fitting;
}

/// Less work that would fit: a smaller block where one is stated, else shorter requests; empty if none would.
std::string less_work(const PlanProblem& problem) {
  const std::int64_t stated = problem.choices.gpu_batch_size;
  const std::int64_t size = largest_that_fits(
      problem, stated - 1, [](PlanProblem& p, std::int64_t value) { p.choices.gpu_batch_size = value; });
  if (size > 0) return fmt::format(", or lower --gpu-batch-size to {}", size);
  const Workload& work = problem.workload;
  const std::int64_t longest =
      largest_that_fits(problem, work.max_total_len - 1, [&](PlanProblem& p, std::int64_t tokens) {
        const std::int64_t generated = std::min(work.max_gen_len, tokens - 1);
        p.workload.seat_demand.clear();
        p.workload.max_prompt_len = tokens - generated;
        p.workload.max_gen_len = generated;
        p.workload.max_total_len = tokens;
      });
  if (longest == 0) return {};
  return fmt::format(", or shorten the requests: the longest has {} tokens, {} at most would fit",
                     work.max_total_len, longest);
}

}  // namespace

PlanRefusal refuse_plan(const PlanProblem& problem) {
  PlanRefusal best;
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  for (const Placement& placement : smallest_placements(problem)) {
    const MemoryPlan memory = memory_of(problem, placement);
    std::int64_t price = 0;
    std::string problem_text;
    std::string remedy;
    const auto lacks = [&](std::int64_t needed, std::int64_t budget, std::string_view what,
                           std::string_view flag, std::int64_t byte_price) {
      if (needed <= budget) return;
      price += byte_price * (needed - budget);
      problem_text +=
          fmt::format("{}{} memory: {} more is needed ({} of {})", problem_text.empty() ? "" : "; ", what,
                      format_bytes(needed - budget), format_bytes(needed), format_bytes(budget));
      const std::int64_t beside = flag == "--gpu-memory" ? problem.beside_gpu_bytes : 0;
      remedy += fmt::format("{}{} to {}MiB", remedy.empty() ? "raise " : " and ", flag,
                            div_up(needed + beside, 1_MiB));
    };
    lacks(needed_bytes(problem, memory.total, Tier::kGpu), problem.budget_bytes[Tier::kGpu], "GPU",
          "--gpu-memory", kGpuPrice);
    lacks(memory.total[Tier::kCpu], problem.budget_bytes[Tier::kCpu], "CPU", "--cpu-memory", kCpuPrice);
    lacks(memory.total[Tier::kDisk], problem.budget_bytes[Tier::kDisk], "disk", "--disk-memory", 1);
    if (price == 0 && problem.host_bytes >= 0) {
      lacks(memory.total[Tier::kGpu] + memory.total[Tier::kCpu], problem.host_bytes, "host",
            "the sum of --gpu-memory and --cpu-memory", kCpuPrice);
    }
    if (price >= least || price == 0) continue;
    least = price;
    best.problem = fmt::format("no placement fits: even {} needs more than there is; {}",
                               placement.block_size() == 1
                                   ? std::string("one sequence at a time")
                                   : fmt::format("the stated block of {}", placement.block_size()),
                               problem_text);
    best.remedy = remedy;
  }
  best.remedy += less_work(problem);
  return best;
}

}  // namespace sluice::policy::detail
