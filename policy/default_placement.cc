#include "policy/default_placement.h"

#include <algorithm>
#include <optional>

#include "core/units.h"
#include "policy/memory_plan.h"
#include "policy/run_shape.h"

namespace sluice::policy {
namespace {

constexpr std::int64_t kLeastTokens = 64;

class Rule {
 public:
  Rule(const ModelSpec& spec, std::span<const TensorSize> tensors, const Workload& workload,
       const PerTier<std::int64_t>& budgets, const Placement& wanted, const DeviceTraits& traits)
      : spec_(spec),
        sizes_(tensors),
        workload_(workload),
        budgets_(budgets),
        wanted_(wanted),
        traits_(traits) {}

  /// The block with the largest share of weights on the fast tiers; empty if it does not fit.
  std::optional<Placement> fill(std::int64_t gpu_batch_size) const {
    Placement placement = with_batch(gpu_batch_size);
    // Half of the GPU is for weights: a smaller workspace only means more passes for long prompts.
    while (plan(placement).total[Tier::kGpu] > budgets_[Tier::kGpu] / 2 &&
           placement.max_tokens_per_gpu_batch / 2 >= std::max(kLeastTokens, gpu_batch_size)) {
      placement.max_tokens_per_gpu_batch /= 2;
    }
    // Slots and stages are as large as the largest streamed unit, so neither total is exactly monotone in the
    // shares, and each pair is judged as a whole. Nothing on disk if that can be: a percent more on the GPU
    // is not worth a percent there.
    PerTier<int>& share = placement.percents.weights;
    for (int gpu = 100; gpu >= 0; --gpu) {
      share = {{gpu, 100 - gpu, 0}};
      if (fits(plan(placement))) return placement;
    }
    // Then most on the GPU, then most in CPU memory.
    for (int gpu = 100; gpu >= 0; --gpu) {
      for (int cpu = 100 - gpu; cpu >= 0; --cpu) {
        share = {{gpu, cpu, 100 - gpu - cpu}};
        const MemoryPlan memory = plan(placement);
        if (memory.bytes(Purpose::kWeights, Tier::kGpu) > budgets_[Tier::kGpu]) break;
        if (fits(memory)) return placement;
      }
    }
    return std::nullopt;
  }

  Placement with_batch(std::int64_t gpu_batch_size) const {
    Placement placement = wanted_;
    placement.cpu_attention = true;
    placement.percents.weights = {{0, 0, 100}};
    placement.percents.kv_cache = {{0, 100, 0}};
    placement.percents.activations = {{100, 0, 0}};
    placement.gpu_batch_size = gpu_batch_size;
    placement.num_gpu_batches = num_batches();
    placement.max_tokens_per_gpu_batch = std::max(placement.max_tokens_per_gpu_batch, gpu_batch_size);
    placement.max_tokens_per_gpu_batch =
        std::min(placement.max_tokens_per_gpu_batch,
                 std::max<std::int64_t>(1, gpu_batch_size * workload_.max_prompt_len));
    return placement;
  }

  std::int64_t num_batches() const {
    if (wanted_.num_gpu_batches > 0) return wanted_.num_gpu_batches;
    return workload_.num_requests > 1 ? 2 : 1;
  }

  std::int64_t most_per_batch() const {
    return std::max<std::int64_t>(1, div_up(workload_.num_requests, num_batches()));
  }

  bool leaves_cpu_for_weights(const Placement& placement) const {
    const MemoryPlan memory = plan(placement);
    return memory.bytes(Purpose::kKv, Tier::kCpu) <= budgets_[Tier::kCpu] / 2;
  }

 private:
  bool fits(const MemoryPlan& memory) const {
    return memory.total[Tier::kGpu] <= budgets_[Tier::kGpu] &&
           memory.total[Tier::kCpu] <= budgets_[Tier::kCpu];
  }

  MemoryPlan plan(const Placement& placement) const {
    return make_memory_plan(make_run_shape(spec_, sizes_, placement, workload_, traits_), false);
  }

  const ModelSpec& spec_;
  std::span<const TensorSize> sizes_;
  const Workload& workload_;
  const PerTier<std::int64_t>& budgets_;
  const Placement& wanted_;
  const DeviceTraits& traits_;
};

}  // namespace

Placement default_placement(const ModelSpec& spec, std::span<const TensorSize> tensors,
                            const Workload& workload, const PerTier<std::int64_t>& budgets,
                            const Placement& wanted, const DeviceTraits& traits) {
  const Rule rule(spec, tensors, workload, budgets, wanted, traits);
  if (wanted.gpu_batch_size > 0) {
    return rule.fill(wanted.gpu_batch_size).value_or(rule.with_batch(wanted.gpu_batch_size));
  }
  const std::optional<Placement> smallest = rule.fill(1);
  if (!smallest) return rule.with_batch(1);
  // A larger block must not push weights from memory to disk; where some are on disk anyway, KV may take half
  // of the CPU memory, because a larger block shares each read of them.
  const bool needs_disk = smallest->percents.weights[Tier::kDisk] > 0;
  const auto accepted = [&](std::int64_t gpu_batch_size) -> std::optional<Placement> {
    const std::optional<Placement> placement = rule.fill(gpu_batch_size);
    if (!placement) return std::nullopt;
    const bool good =
        needs_disk ? rule.leaves_cpu_for_weights(*placement) : placement->percents.weights[Tier::kDisk] == 0;
    return good ? placement : std::nullopt;
  };
  Placement best = *smallest;
  std::int64_t fits = 1;
  std::int64_t too_large = rule.most_per_batch() + 1;
  while (too_large - fits > 1) {
    const std::int64_t middle = fits + (too_large - fits) / 2;
    if (const std::optional<Placement> placement = accepted(middle)) {
      best = *placement;
      fits = middle;
    } else {
      too_large = middle;
    }
  }
  return best;
}

}  // namespace sluice::policy
