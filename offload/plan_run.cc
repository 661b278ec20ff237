#include "offload/plan_run.h"

#include <algorithm>

#include "core/log.h"
#include "core/units.h"
#include "offload/executor/model_runner.h"
#include "offload/memory/usable_memory.h"

namespace sluice::offload {
namespace {

constexpr std::int64_t kLeastTokens = 64;  // below this, prefill would crawl
constexpr std::int64_t kLeastPiece = 256_KiB;
constexpr std::int64_t kBesideTiers = 2_GiB;
constexpr std::int64_t kBesideGpuTier = 512_MiB;  // kernels that libraries load, local memory

/// Pieces are read with O_DIRECT, and a schedule counts those of a unit in 16 bits.
std::int64_t checked_piece(std::int64_t bytes) {
  SLUICE_CHECK(bytes >= kLeastPiece && bytes % kPageAlign == 0, Code::kInvalidArgument,
               fmt::format("weights cannot move in pieces of {}", format_bytes(bytes)),
               fmt::format("give a --piece-size of at least {} that is a multiple of {}",
                           format_bytes(kLeastPiece), format_bytes(kPageAlign)));
  return bytes;
}

/// Only products take matrices that are not dense, and on a CUDA device weights and activations are of one
/// type.
void check_formats(const WeightSource& source, const policy::DeviceTraits& traits,
                   const kernels::Device& device) {
  for (const SourceTensor& tensor : source.tensors()) {
    SLUICE_CHECK(
        tensor.format.encoding == Encoding::kDense || kernels::can_be_encoded(tensor.spec),
        Code::kUnsupported,
        fmt::format("tensor '{}' is {}, which it cannot be computed with", tensor.spec.name,
                    weight_format_name(tensor.format)),
        "convert the checkpoint again: only matrices of decoder layers get other formats than dense");
    if (device.kind() != kernels::DeviceKind::kCuda) continue;
    const DType dtype = tensor.format.dtype;
    SLUICE_CHECK(tensor.spec.is_vector || dtype == traits.activation_dtype, Code::kUnsupported,
                 fmt::format("tensor '{}' is {}, while the activations on {} are {}", tensor.spec.name,
                             weight_format_name(tensor.format), device.description(),
                             dtype_name(traits.activation_dtype)),
                 "use --device cpu, which takes any mix, or a checkpoint of one type");
  }
}

/// The seat decides who attends for a sequence, and the two devices round differently.
void check_invariance(const policy::RunShape& shape, const kernels::Device& device) {
  if (device.kind() != kernels::DeviceKind::kCuda || shape.max_cpu_rows == 0) return;
  const auto on_cpu = std::count_if(shape.seats.seats.begin(), shape.seats.seats.end(),
                                    [&](const auto& seat) { return shape.attends_on_cpu(seat); });
  SLUICE_CHECK(
      on_cpu == std::ssize(shape.seats.seats), Code::kInvalidArgument,
      fmt::format(
          "batch invariance: the CPU would attend for {} of the block's {} seats, the GPU for the others",
          on_cpu, shape.seats.seats.size()),
      "keep the KV cache on the GPU, or none of it (--percent), or leave --cpu-cache-compute out");
}

enum class GpuBudget : std::uint8_t { kNone, kStated };

void check_gpu_memory(const policy::MemoryPlan& plan, GpuBudget budget, const kernels::Device& device) {
  const std::int64_t needed = plan.total[Tier::kGpu];
  // Somebody who states a budget may have all but what the driver needs beside the tier.
  const std::int64_t free = device.free_bytes();
  const std::int64_t usable =
      budget == GpuBudget::kStated ? std::max(free / 10 * 9, free - kBesideGpuTier) : free / 10 * 9;
  SLUICE_CHECK(
      needed <= usable, Code::kOutOfMemory,
      fmt::format("the placement needs {} of GPU memory, but {} can be had on {} ({} are free; planned: {})",
                  format_bytes(needed), format_bytes(usable), device.description(), format_bytes(free),
                  policy::to_string(plan, Tier::kGpu)),
      "put more on the CPU (--percent), lower --gpu-memory, --gpu-batch-size or --num-gpu-batches");
}

void check_free_memory(const policy::MemoryPlan& plan, const EngineOptions& options,
                       const kernels::Device& device) {
  const bool own_memory = device.has_own_memory();
  if (own_memory) {
    check_gpu_memory(plan, options.budget_bytes[Tier::kGpu] >= 0 ? GpuBudget::kStated : GpuBudget::kNone,
                     device);
  }
  const std::int64_t needed = plan.total[Tier::kCpu] + (own_memory ? 0 : plan.total[Tier::kGpu]);
  const bool stated =
      options.budget_bytes[Tier::kCpu] >= 0 && (own_memory || options.budget_bytes[Tier::kGpu] >= 0);
  const std::int64_t free = usable_host_bytes();
  // Somebody who states budgets may have all but what the process needs beside its tiers.
  const std::int64_t usable = stated ? std::max(free / 10 * 9, free - kBesideTiers) : free / 10 * 9;
  SLUICE_CHECK(
      needed <= usable, Code::kOutOfMemory,
      fmt::format(
          "the placement needs {} of memory ({}cpu tier {}), but {} of the {} that are free can be had",
          format_bytes(needed),
          own_memory ? "" : fmt::format("gpu tier {}, ", format_bytes(plan.total[Tier::kGpu])),
          format_bytes(plan.total[Tier::kCpu]), format_bytes(usable), format_bytes(free)),
      "put more on disk (--percent), or lower --gpu-batch-size or --num-gpu-batches");
  const std::int64_t disk = plan.total[Tier::kDisk];
  if (disk == 0) return;
  std::error_code unusable;  // a bad $TMPDIR: DiskDir says so, with the remedy
  const std::filesystem::path folder =
      options.disk_dir.empty() ? std::filesystem::temp_directory_path(unusable) : options.disk_dir;
  if (unusable) return;
  const std::int64_t disk_free = usable_disk_bytes(folder);
  SLUICE_CHECK(disk <= disk_free / 10 * 9, Code::kOutOfMemory,
               fmt::format("the placement needs {} on disk, but 90 % of what is free at '{}' is {}",
                           format_bytes(disk), folder.string(), format_bytes(disk_free / 10 * 9)),
               "name a larger disk with --disk-dir, or keep more in memory (--percent)");
}

}  // namespace

policy::DeviceTraits run_traits(const WeightSource& source, const EngineOptions& options,
                                kernels::DeviceKind kind) {
  policy::DeviceTraits traits = ModelRunner::traits(source, kind, options.host_weights);
  if (options.weight_piece_bytes > 0) traits.weight_piece_bytes = checked_piece(options.weight_piece_bytes);
  return traits;
}

PlannedRun plan_run(const WeightSource& source, const EngineOptions& options, const kernels::Device& device) {
  const policy::DeviceTraits traits = run_traits(source, options, device.kind());
  policy::Placement placement = policy::overlapping(options.placement);
  if (placement != options.placement) {
    log_info("CPU attention with one GPU batch: made two of {} sequences, so that CPU and GPU overlap",
             placement.gpu_batch_size);
  }
  const std::vector<policy::TensorSize> sizes = source.sizes();
  std::int64_t gpu_budget = options.budget_bytes[Tier::kGpu];
  PlannedRun run;
  while (true) {
    run.shape = policy::make_run_shape(source.spec(), sizes, placement, options.workload, traits);
    run.memory = policy::make_memory_plan(run.shape, source.synthetic());
    if (gpu_budget >= 0 && device.has_own_memory())
      gpu_budget = arena_budget(options.budget_bytes[Tier::kGpu] -
                                policy::page_table_bytes(run.memory.total[Tier::kCpu]));
    const std::int64_t fewer = run.shape.max_tokens / 2;
    if (gpu_budget < 0 || run.memory.total[Tier::kGpu] <= gpu_budget ||
        fewer < std::max(kLeastTokens, placement.gpu_batch_size)) {
      break;
    }
    placement.max_tokens_per_gpu_batch = fewer;
  }
  if (run.shape.max_tokens < std::min(options.placement.max_tokens_per_gpu_batch,
                                      placement.gpu_batch_size * options.workload.max_prompt_len)) {
    log_info("a GPU batch takes at most {} tokens a pass, so that its workspace fits", run.shape.max_tokens);
  }
  for (Tier tier : kTiers) {
    const std::int64_t asked = tier == Tier::kGpu ? gpu_budget : options.budget_bytes[tier];
    run.budget_bytes[tier] = asked >= 0 ? asked : run.memory.total[tier];
  }
  check_formats(source, traits, device);
  if (options.batch_invariance == kernels::BatchInvariance::kOn) check_invariance(run.shape, device);
  check_free_memory(run.memory, options, device);
  return run;
}

}  // namespace sluice::offload
