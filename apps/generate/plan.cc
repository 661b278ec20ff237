#include "apps/generate/plan.h"

#include <algorithm>

#include "core/error.h"
#include "core/units.h"
#include "offload/choose_device.h"
#include "offload/memory/usable_memory.h"
#include "offload/plan_run.h"
#include "offload/weights/weight_source.h"
#include "policy/default_placement.h"

namespace sluice::apps {
namespace {

constexpr std::int64_t kUnstated = -1;

// A run without budgets may take at most this share of what is free; the rest is for the page cache of others
// and for what the process itself needs.
constexpr double kUsableShare = 0.9;

PerTier<std::int64_t> stated_budgets(const MemoryConfig& config) {
  const auto bytes = [](const std::string& text, std::string_view flag) {
    return text.empty() ? kUnstated : parse_bytes(text, flag);
  };
  return {{bytes(config.gpu, "--gpu-memory"), bytes(config.cpu, "--cpu-memory"),
           bytes(config.disk, "--disk-memory")}};
}

std::int64_t usable_share(std::int64_t bytes) {
  return static_cast<std::int64_t>(kUsableShare * static_cast<double>(bytes));
}

/// What the rule may fill where nothing is stated. On the CPU device both memory tiers are host memory: what
/// one of them leaves is the other's, and without any statement each gets half.
PerTier<std::int64_t> budgets_for_rule(const PerTier<std::int64_t>& stated,
                                       const std::filesystem::path& disk_dir,
                                       const offload::DeviceChoice& device) {
  PerTier<std::int64_t> budgets = stated;
  const std::int64_t host = usable_share(offload::usable_host_bytes());
  std::int64_t& gpu = budgets[Tier::kGpu];
  std::int64_t& cpu = budgets[Tier::kCpu];
  if (const std::optional<std::int64_t> free = offload::device_free_bytes(device)) {
    gpu = gpu == kUnstated ? usable_share(*free) : offload::arena_budget(gpu);
    if (cpu == kUnstated) cpu = host;
  }
  if (gpu == kUnstated && cpu == kUnstated) gpu = host / 2;
  if (gpu == kUnstated) gpu = std::max<std::int64_t>(0, host - cpu);
  if (cpu == kUnstated) cpu = std::max<std::int64_t>(0, host - gpu);
  if (budgets[Tier::kDisk] == kUnstated) {
    const auto folder = disk_dir.empty() ? std::filesystem::temp_directory_path() : disk_dir;
    budgets[Tier::kDisk] = usable_share(offload::usable_disk_bytes(folder));
  }
  return budgets;
}

}  // namespace

std::int64_t stated_block_size(const PlacementConfig& config) {
  // FlexGen's defaults: four sequences, one GPU batch.
  constexpr std::int64_t kGpuBatchSize = 4;
  const std::int64_t gpu_batch_size = config.gpu_batch_size > 0 ? config.gpu_batch_size : kGpuBatchSize;
  return gpu_batch_size * std::max<std::int64_t>(1, config.num_gpu_batches);
}

offload::EngineOptions plan_engine(const GenerateConfig& config, const offload::ModelSource& model,
                                   const policy::Workload& workload) {
  const PlacementConfig& wanted = config.placement;
  offload::EngineOptions options;
  options.workload = workload;
  options.budget_bytes = stated_budgets(config.memory);
  options.disk_dir = config.memory.disk_dir;
  options.num_threads = static_cast<int>(config.compute.threads);
  if (!wanted.piece_size.empty()) options.weight_piece_bytes = parse_bytes(wanted.piece_size, "--piece-size");
  if (!config.memory.pin_weights) options.host_weights = offload::HostWeights::kPageable;
  if (config.compute.batch_invariant) options.batch_invariance = kernels::BatchInvariance::kOn;
  options.device = offload::choose_device(offload::parse_device(config.compute.device));

  policy::Placement& placement = options.placement;
  placement.cpu_attention = wanted.cpu_cache_compute;
  placement.mixing = wanted.mixing;
  placement.max_tokens_per_gpu_batch = wanted.max_tokens_per_gpu_batch;
  placement.prefetch_depth = wanted.prefetch_depth;
  placement.kv_format = wanted.kv_format;
  placement.gpu_batch_size = wanted.gpu_batch_size;
  placement.num_gpu_batches = wanted.num_gpu_batches;
  if (wanted.percent.empty()) {
    const offload::WeightSource weights(model);
    placement = policy::default_placement(
        weights.spec(), weights.sizes(), workload,
        budgets_for_rule(options.budget_bytes, options.disk_dir, options.device), placement,
        offload::device_traits(weights, options.device, options.host_weights));
  } else {
    placement.percents = policy::parse_percents(wanted.percent);
    if (placement.gpu_batch_size == 0) {
      placement.gpu_batch_size = std::clamp<std::int64_t>(workload.num_requests, 1, stated_block_size({}));
    }
    placement.num_gpu_batches = std::max<std::int64_t>(1, placement.num_gpu_batches);
  }
  validate(placement);
  return options;
}

}  // namespace sluice::apps
