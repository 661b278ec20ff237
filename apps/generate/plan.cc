#include "apps/generate/plan.h"

#include <algorithm>

#include "core/error.h"
#include "core/units.h"
#include "offload/choose_device.h"
#include "offload/weights/weight_source.h"

namespace sluice::apps {
namespace {

constexpr std::int64_t kUnstated = -1;

PerTier<std::int64_t> stated_budgets(const MemoryConfig& config) {
  const auto bytes = [](const std::string& text, std::string_view flag) {
    return text.empty() ? kUnstated : parse_bytes(text, flag);
  };
  return {{bytes(config.gpu, "--gpu-memory"), bytes(config.cpu, "--cpu-memory"),
           bytes(config.disk, "--disk-memory")}};
}

}  // namespace

std::int64_t stated_block_size(const PlacementConfig& config) {
  // FlexGen's defaults: four sequences, one GPU batch.
  constexpr std::int64_t kGpuBatchSize = 4;
  const std::int64_t gpu_batch_size = config.gpu_batch_size > 0 ? config.gpu_batch_size : kGpuBatchSize;
  return gpu_batch_size * std::max<std::int64_t>(1, config.num_gpu_batches);
}

policy::Placement stated_placement(const PlacementConfig& stated, std::int64_t num_requests) {
  policy::Placement placement;
  placement.percents = policy::parse_percents(stated.percent);
  placement.cpu_attention = stated.cpu_cache_compute.value_or(false);
  placement.mixing = stated.mixing;
  placement.prefetch = stated.prefetch;
  placement.kv_format = stated.kv_format;
  if (stated.max_tokens_per_gpu_batch > 0)
    placement.max_tokens_per_gpu_batch = stated.max_tokens_per_gpu_batch;
  if (stated.prefetch_depth > 0) placement.prefetch_depth = stated.prefetch_depth;
  placement.gpu_batch_size = stated.gpu_batch_size;
  if (placement.gpu_batch_size == 0)
    placement.gpu_batch_size = std::clamp<std::int64_t>(num_requests, 1, stated_block_size({}));
  placement.num_gpu_batches = std::max<std::int64_t>(1, stated.num_gpu_batches);
  return placement;
}

EnginePlan plan_engine(const GenerateConfig& config, const offload::ModelSource& model, const RunWork& work) {
  const PlacementConfig& stated = config.placement;
  EnginePlan plan;
  offload::EngineOptions& options = plan.options;
  options.workload = work.workload;
  options.budget_bytes = stated_budgets(config.memory);
  options.disk_dir = config.memory.disk_dir;
  options.num_threads = static_cast<int>(config.compute.threads);
  if (!stated.piece_size.empty()) options.weight_piece_bytes = parse_bytes(stated.piece_size, "--piece-size");
  if (!config.memory.pin_weights) options.host_weights = offload::HostWeights::kPageable;
  if (config.compute.batch_invariant) options.batch_invariance = kernels::BatchInvariance::kOn;
  options.device = offload::choose_device(offload::parse_device(config.compute.device));
  if (stated.percent.empty()) {
    ChosenPlacement chosen = choose_placement(config, offload::WeightSource(model), work, options);
    options.placement = chosen.placement;
    if (options.num_threads == 0) options.num_threads = chosen.num_threads;
    plan.searched = chosen.profile.has_value();
    plan.profile = std::move(chosen.profile);
  } else {
    options.placement = stated_placement(stated, work.workload.num_requests);
  }
  validate(options.placement);
  return plan;
}

}  // namespace sluice::apps
