#include "policy/plan_refusal.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "core/units.h"
#include "policy/fill_memory.h"
#include "policy/plan_lattice.h"

namespace sluice::policy::detail {

PlanRefusal refuse_plan(const PlanProblem& problem) {
  PlanRefusal best;
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  Placement placement;
  placement.mixing = problem.choices.mixing;
  placement.kv_format = problem.choices.kv_format;
  placement.gpu_batch_size = std::max<std::int64_t>(1, problem.choices.gpu_batch_size);
  placement.num_gpu_batches = std::max<std::int64_t>(1, problem.choices.num_gpu_batches);
  placement.max_tokens_per_gpu_batch =
      std::max(placement.gpu_batch_size,
               problem.choices.max_tokens_per_gpu_batch > 0
                   ? problem.choices.max_tokens_per_gpu_batch
                   : std::min(kLeastTokens, placement.gpu_batch_size * problem.workload.max_prompt_len));
  for (const PerTier<int>& weights : {PerTier<int>{{0, 0, 100}}, {{0, 100, 0}}, {{100, 0, 0}}}) {
    for (const PerTier<int>& kv : {PerTier<int>{{0, 100, 0}}, {{100, 0, 0}}, {{0, 0, 100}}}) {
      placement.percents.weights = problem.choices.weights.value_or(weights);
      placement.percents.kv_cache = problem.choices.kv_cache.value_or(kv);
      placement.percents.activations = problem.choices.activations.value_or(PerTier<int>{{100, 0, 0}});
      placement.cpu_attention = problem.choices.cpu_attention.value_or(kv[Tier::kGpu] == 0);
      const MemoryPlan memory = memory_of(problem, placement);
      std::int64_t missing = 0;
      std::string problem_text;
      std::string remedy;
      const auto lacks = [&](std::int64_t needed, std::int64_t budget, std::string_view what,
                             std::string_view flag) {
        if (needed <= budget) return;
        missing += needed - budget;
        problem_text +=
            fmt::format("{}{} memory: {} more is needed ({} of {})", problem_text.empty() ? "" : "; ", what,
                        format_bytes(needed - budget), format_bytes(needed), format_bytes(budget));
        remedy += fmt::format("{}{} to {}", remedy.empty() ? "raise " : " and ", flag, format_bytes(needed));
      };
      lacks(memory.total[Tier::kGpu], problem.budget_bytes[Tier::kGpu], "GPU", "--gpu-memory");
      lacks(memory.total[Tier::kCpu], problem.budget_bytes[Tier::kCpu], "CPU", "--cpu-memory");
      lacks(memory.total[Tier::kDisk], problem.budget_bytes[Tier::kDisk], "disk", "--disk-memory");
      if (missing == 0 && problem.host_bytes >= 0) {
        lacks(memory.total[Tier::kGpu] + memory.total[Tier::kCpu], problem.host_bytes, "host",
              "the sum of --gpu-memory and --cpu-memory");
      }
      if (missing >= least || missing == 0) continue;
      least = missing;
      best.problem = fmt::format("no placement fits: even {} needs more than there is; {}",
                                 placement.block_size() == 1
                                     ? std::string("one sequence at a time")
                                     : fmt::format("the stated block of {}", placement.block_size()),
                                 problem_text);
      const std::int64_t context = problem.workload.seat_tokens();
      best.remedy = fmt::format("{}, or shorten the requests ({} tokens now)", remedy, context);
    }
  }
  return best;
}

}  // namespace sluice::policy::detail
