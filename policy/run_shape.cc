#include "policy/run_shape.h"

#include <algorithm>

#include "core/error.h"
#include "core/units.h"

namespace sluice::policy {
namespace {

constexpr int kNumWindows = 2;   // one attended while the next is filled
constexpr int kNumKvStages = 3;  // one read into, one in use, one written back
constexpr int kNumWeightStages = 2;
constexpr int kSharedDiskBuffers = 2;

void shape_weights(RunShape& shape, std::span<const TensorSize> tensors) {
  const std::vector<Tier> tiers = place_weights(tensors, shape.placement.percents.weights);
  shape.weight_bytes = {};
  shape.weight_slot_bytes = shape.weight_stage_bytes = 0;
  shape.max_pieces = 1;
  shape.units.assign(static_cast<std::size_t>(num_units(shape.spec)), {});
  shape.tensors.resize(tensors.size());
  const auto unit_of = [&](std::size_t i) -> UnitStream& {
    return shape.units[static_cast<std::size_t>(shape.carrier(tensors[i].unit))];
  };
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    TensorHome& home = shape.tensors[i];
    home.tier = tiers[i];
    home.padded_bytes = align_up(tensors[i].bytes, kPageAlign);
    if (home.tier == Tier::kCpu) {
      home.slot_offset = unit_of(i).cpu_bytes;
      unit_of(i).cpu_bytes += home.padded_bytes;
    } else if (home.tier == Tier::kDisk) {
      home.slot_offset = unit_of(i).disk_bytes;  // its part of the slot starts after the CPU part: below
      unit_of(i).disk_bytes += home.padded_bytes;
    }
  }
  std::int64_t cpu_offset = 0;
  for (UnitStream& unit : shape.units) {
    unit.cpu_offset = cpu_offset;
    cpu_offset += unit.cpu_bytes;
    shape.weight_slot_bytes = std::max(shape.weight_slot_bytes, unit.bytes());
    shape.weight_stage_bytes = std::max(shape.weight_stage_bytes, unit.disk_bytes);
    shape.max_pieces = std::max(shape.max_pieces, shape.num_pieces(unit));
  }
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    TensorHome& home = shape.tensors[i];
    if (home.tier == Tier::kCpu) {
      home.home_offset = unit_of(i).cpu_offset + home.slot_offset;
    } else {
      home.home_offset = shape.weight_bytes[home.tier];
      if (home.tier == Tier::kDisk) home.slot_offset += unit_of(i).cpu_bytes;
    }
    shape.weight_bytes[home.tier] += home.padded_bytes;
  }
  set_weight_slots(shape, shape.weight_slot_bytes, shape.weight_stage_bytes);
}

/// Most pages that the GPU batches hold on tiers that `counts` selects, over the batches.
template <class PagesOf>
std::int64_t max_over_batches(const RunShape& shape, PagesOf pages_of) {
  std::int64_t most = 0;
  for (std::int64_t batch = 0; batch < shape.placement.num_gpu_batches; ++batch) {
    std::int64_t pages = 0;
    for (std::int64_t i = 0; i < shape.placement.gpu_batch_size; ++i) {
      pages +=
          pages_of(shape.seats.seats[static_cast<std::size_t>(batch * shape.placement.gpu_batch_size + i)]);
    }
    most = std::max(most, pages);
  }
  return most;
}

void shape_kv(RunShape& shape) {
  const Placement& placement = shape.placement;
  shape.kv = {shape.spec.num_kv_heads, shape.spec.head_dim, placement.kv_format};
  shape.pages_per_seat = kv_pages(shape.workload.seat_tokens());
  shape.seats = make_seat_map(placement, seat_pages(placement, shape.workload));
  const std::int64_t off_gpu = max_over_batches(shape, [](const SeatPages& s) { return s.off_gpu(); });
  const std::int64_t on_disk =
      max_over_batches(shape, [](const SeatPages& s) { return s.count[Tier::kDisk]; });
  if (off_gpu > 0) {
    // Streamed decode needs every off-GPU page of a batch at once; with CPU attention only prefill rows and
    // the batch's one split seat come to the GPU.
    const std::int64_t prefill =
        shape.max_tokens / kKvPageTokens + placement.gpu_batch_size + 2 * shape.pages_per_seat;
    shape.num_windows = kNumWindows;
    shape.window_pages = placement.cpu_attention ? std::min(off_gpu, prefill) : off_gpu;
  }
  if (on_disk > 0) {
    shape.num_kv_stages = kNumKvStages;
    shape.kv_stage_pages = on_disk;
  }
  const bool any_on_cpu = std::any_of(shape.seats.seats.begin(), shape.seats.seats.end(),
                                      [&](const SeatPages& seat) { return shape.attends_on_cpu(seat); });
  shape.max_cpu_rows = any_on_cpu ? placement.gpu_batch_size : 0;
}

void shape_activations(RunShape& shape) {
  const Placement& placement = shape.placement;
  shape.activation_bytes = align_up(shape.max_tokens * shape.spec.hidden_dim * shape.act_bytes(), kPageAlign);
  shape.activation_tier = place_activations(placement.percents.activations, placement.num_gpu_batches);
  int slots = 0;
  int buffers = 0;
  int files = 0;
  for (Tier tier : shape.activation_tier) {
    shape.activation_slot.push_back(tier == Tier::kGpu ? slots++ : -1);
    shape.activation_buffer.push_back(tier == Tier::kCpu ? buffers++ : -1);
    shape.activation_file.push_back(tier == Tier::kDisk ? files++ : -1);
  }
  const int shared = std::min(files, kSharedDiskBuffers);
  for (std::size_t i = 0; i < shape.activation_tier.size(); ++i) {
    if (shape.activation_file[i] >= 0)
      shape.activation_buffer[i] = buffers + shape.activation_file[i] % shared;
  }
  shape.first_ring_slot = slots;
  const bool any_off_gpu = slots < placement.num_gpu_batches;
  // Live at once: the items between pre and post, the one being loaded, the one being stored.
  shape.num_activation_slots = slots + (any_off_gpu ? shape.lag + 3 : 0);
  shape.num_activation_buffers = buffers + shared;
}

}  // namespace

RunShape make_run_shape(const ModelSpec& spec, std::span<const TensorSize> tensors,
                        const Placement& placement, const Workload& workload, const DeviceTraits& traits) {
  validate(placement);
  SLUICE_CHECK(workload.max_prompt_len >= 1 && workload.max_total_len >= workload.max_prompt_len,
               Code::kInvalidArgument,
               fmt::format("workload: longest prompt {} tokens, longest sequence {}", workload.max_prompt_len,
                           workload.max_total_len),
               "give prompts of at least one token");
  SLUICE_CHECK(workload.max_total_len <= spec.max_positions, Code::kInvalidArgument,
               fmt::format("a sequence of {} tokens exceeds the context of {} of model '{}'",
                           workload.max_total_len, spec.max_positions, spec.name),
               "shorten the prompt or generate fewer tokens");
  RunShape shape;
  shape.spec = spec;
  shape.placement = placement;
  shape.workload = workload;
  shape.traits = traits;
  // No GPU batch can ever have more rows than all its seats' prompts together.
  shape.max_tokens =
      std::min(placement.max_tokens_per_gpu_batch, placement.gpu_batch_size * workload.max_prompt_len);
  shape.max_tokens = std::max(shape.max_tokens, placement.gpu_batch_size);
  shape.max_result_rows = workload.max_logprob_rows > 0 ? shape.max_tokens : placement.gpu_batch_size;
  shape_kv(shape);
  shape.lag = shape.max_cpu_rows > 0 && placement.num_gpu_batches > 1 ? 1 : 0;
  shape.num_sets = shape.lag + 1;
  shape_weights(shape, tensors);
  shape_activations(shape);
  return shape;
}

void set_weight_slots(RunShape& shape, std::int64_t slot_bytes, std::int64_t stage_bytes) {
  // More slots than a pass has units would never be filled.
  const std::int64_t depth = std::min(shape.placement.prefetch_depth, shape.spec.num_layers + 1);
  shape.weight_slot_bytes = slot_bytes;
  shape.weight_stage_bytes = stage_bytes;
  shape.num_weight_slots = slot_bytes > 0 ? std::max<std::int64_t>(2, depth) + shape.lag : 0;
  shape.num_weight_stages = stage_bytes > 0 ? kNumWeightStages : 0;
}

void replace_weights(RunShape& shape, std::span<const TensorSize> tensors, const PerTier<int>& percent) {
  shape.placement.percents.weights = percent;
  validate(shape.placement);
  shape_weights(shape, tensors);
}

}  // namespace sluice::policy
