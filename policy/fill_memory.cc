#include "policy/fill_memory.h"

#include <algorithm>

namespace sluice::policy {

bool fits(const PlanProblem& problem, const MemoryPlan& memory) {
  for (const Tier tier : kTiers) {
    if (memory.total[tier] > problem.budget_bytes[tier]) return false;
  }
  return problem.host_bytes < 0 || memory.total[Tier::kGpu] + memory.total[Tier::kCpu] <= problem.host_bytes;
}

namespace detail {
namespace {

/// The largest of 0..most that `good` accepts, -1 if none. `most` is tried first: without streaming or
/// without a disk there are no slots or stages, so the last percent may cost less than the one before it.
template <class Good>
int largest_share(int most, Good good) {
  if (good(most)) return most;
  int low = -1;
  int high = most;
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    (good(middle) ? low : high) = middle;
  }
  return low;
}

}  // namespace

MemoryPlan memory_of(const PlanProblem& problem, const Placement& placement) {
  return make_memory_plan(
      make_run_shape(problem.spec, problem.sizes, placement, problem.workload, problem.traits),
      problem.weights_on_disk);
}

std::optional<Placement> fill_weights(const PlanProblem& problem, Placement placement) {
  PerTier<int>& share = placement.percents.weights;
  if (problem.choices.weights) {
    share = *problem.choices.weights;
    return fits(problem, memory_of(problem, placement)) ? std::optional(placement) : std::nullopt;
  }
  RunShape shape = make_run_shape(problem.spec, problem.sizes, placement, problem.workload, problem.traits);
  const auto memory_with = [&](const PerTier<int>& weights) {
    replace_weights(shape, problem.sizes, weights);
    return make_memory_plan(shape, problem.weights_on_disk);
  };
  const auto within_host = [&](const MemoryPlan& memory) {
    return problem.host_bytes < 0 ||
           memory.total[Tier::kGpu] + memory.total[Tier::kCpu] <= problem.host_bytes;
  };
  // Each tier is judged alone: what does not fit it goes to the next, and the whole is checked at the end.
  const auto gpu_fits = [&](int gpu) {
    for (const int cpu : {0, 100 - gpu}) {
      share = {{gpu, cpu, 100 - gpu - cpu}};
      const MemoryPlan memory = memory_with(share);
      if (memory.total[Tier::kGpu] > problem.budget_bytes[Tier::kGpu]) return false;
      if (within_host(memory)) return true;
    }
    return false;
  };
  const int most = largest_share(100, gpu_fits);
  // What slots and stages take depends on how the shares fall on tensors, so that a larger share may fit
  // where a smaller one does not, and a share of the GPU that leaves too little for the rest is of no use.
  // Where something is left for the disk, round shares are tried, too, and the one that leaves least is
  // taken.
  std::optional<Placement> best;
  const auto consider = [&](int gpu, int cpu) {
    if (gpu < 0 || cpu < 0 || gpu + cpu > 100) return;
    share = {{gpu, cpu, 100 - gpu - cpu}};
    if (best && share[Tier::kDisk] >= best->percents.weights[Tier::kDisk]) return;
    if (fits(problem, memory_with(share))) best = placement;
  };
  for (const int gpu : {most, most - 1, most - 2, 75, 50, 25, 0}) {
    if (gpu < 0) continue;
    const auto cpu_fits = [&](int cpu) {
      share = {{gpu, cpu, 100 - gpu - cpu}};
      const MemoryPlan memory = memory_with(share);
      return memory.total[Tier::kCpu] <= problem.budget_bytes[Tier::kCpu] && within_host(memory);
    };
    consider(gpu, largest_share(100 - gpu, cpu_fits));
    for (const int cpu : {75, 50, 25, 0}) consider(gpu, cpu);
    if (best && best->percents.weights[Tier::kDisk] == 0) break;
  }
  return best;
}

}  // namespace detail
}  // namespace sluice::policy
