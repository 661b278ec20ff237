// Every count and size that a placement implies for a model and a workload: seats, slots, windows, buffers.
// The memory plan, the pass composer, the schedule builder and the executor all read this one struct. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/dtype.h"
#include "core/kv_page.h"
#include "core/model/spec.h"
#include "core/tier.h"
#include "policy/place_weights.h"
#include "policy/placement.h"
#include "policy/seat_map.h"

namespace sluice::policy {

/// What policy must know of the device and its kernels, as data.
struct DeviceTraits {
  DType activation_dtype = DType::kF32;
  std::int64_t logits_rows = 64;          ///< logits are made in chunks of this many rows
  std::int64_t mlp_rows = 256;            ///< the MLP runs in chunks of this many rows
  std::int64_t sample_scratch_bytes = 0;  ///< for one chunk of logits
  std::int64_t workspace_bytes = 0;       ///< of the GPU lane's operators, beside their operands
  std::int64_t expanded_bytes = 0;        ///< slices of a weight that are expanded ahead of their products
  std::int64_t sample_row_bytes = 0;      ///< parameters of one wanted row
  std::int64_t sampled_row_bytes = 0;     ///< result of one wanted row
  std::int64_t top_token_bytes = 0;       ///< one entry of its most likely tokens
  std::int64_t weight_piece_bytes = std::int64_t{32} << 20;  ///< weights move in pieces of this size
  std::int64_t num_weight_slabs = 0;  ///< of a piece each: the way of pageable weights to the GPU
};

/// Where one tensor lives and where its copy lands in a ring slot. Offsets are multiples of kPageAlign.
struct TensorHome {
  Tier tier = Tier::kGpu;
  std::int64_t padded_bytes = 0;
  std::int64_t home_offset =
      0;  ///< in the tier's weight region (GPU, CPU; on disk only for synthetic models)
  std::int64_t slot_offset = 0;  ///< in the ring slot; streamed tensors only
};

/// What one unit moves per pass. A slot holds [CPU-resident part | disk-resident part].
struct UnitStream {
  std::int64_t cpu_bytes = 0;
  std::int64_t disk_bytes = 0;
  std::int64_t cpu_offset = 0;  ///< where its CPU-resident part starts in the CPU weight region
  std::int64_t bytes() const { return cpu_bytes + disk_bytes; }
};

struct RunShape {
  ModelSpec spec;
  Placement placement;
  Workload workload;
  DeviceTraits traits;

  // Weights. The input unit's tensors travel with the output unit, because the tied vocabulary matrix serves
  // the end of one pass and the start of the next; so a pass streams num_layers + 1 units.
  std::vector<TensorHome> tensors;       ///< in model_tensors order
  std::vector<UnitStream> units;         ///< by unit; units[0] is empty
  PerTier<std::int64_t> weight_bytes{};  ///< padded, per tier
  std::int64_t weight_slot_bytes = 0, num_weight_slots = 0;
  std::int64_t weight_stage_bytes = 0, num_weight_stages = 0;
  std::int64_t max_pieces = 1;  ///< of any unit

  // KV.
  KvLayout kv;
  std::int64_t pages_per_seat = 0;  ///< of the longest
  SeatMap seats;
  std::int64_t num_windows = 0, window_pages = 0;      ///< GPU, for off-GPU pages attended there
  std::int64_t num_kv_stages = 0, kv_stage_pages = 0;  ///< CPU, for disk pages

  // Activations. Slots [0, gpu-resident batches) are theirs; the rest is a ring for the others.
  std::int64_t activation_bytes = 0;   ///< of one GPU batch's residual stream, padded
  std::vector<Tier> activation_tier;   ///< per GPU batch
  std::vector<int> activation_slot;    ///< per GPU batch: its own GPU slot, or -1
  std::vector<int> activation_buffer;  ///< per GPU batch: its CPU buffer, or -1 (disk batches share two)
  std::vector<int> activation_file;    ///< per GPU batch: its place in the disk region, or -1
  std::int64_t num_activation_slots = 0, first_ring_slot = 0, num_activation_buffers = 0;

  // Pass.
  std::int64_t max_tokens = 0;       ///< rows of a GPU batch in one pass
  std::int64_t max_result_rows = 0;  ///< wanted rows of a GPU batch in one pass
  std::int64_t max_cpu_rows = 0;     ///< CPU-attended rows of a GPU batch
  std::int64_t lag = 0;       ///< 1: post of an item runs after pre of the next, so that CPU and GPU overlap
  std::int64_t num_sets = 1;  ///< q, k, v, attention buffers in flight

  std::int64_t carrier(std::int64_t unit) const { return unit == 0 ? output_unit(spec) : unit; }
  /// Pieces in which a unit moves: its CPU-resident part, then its disk part.
  std::int64_t cpu_pieces(const UnitStream& unit) const {
    return div_up(unit.cpu_bytes, traits.weight_piece_bytes);
  }
  std::int64_t disk_pieces(const UnitStream& unit) const {
    return div_up(unit.disk_bytes, traits.weight_piece_bytes);
  }
  std::int64_t num_pieces(const UnitStream& unit) const { return cpu_pieces(unit) + disk_pieces(unit); }
  std::int64_t q_dim() const { return spec.num_heads * spec.head_dim; }
  std::int64_t kv_dim() const { return spec.num_kv_heads * spec.head_dim; }
  std::int64_t act_bytes() const { return dtype_bytes(traits.activation_dtype); }
  /// Whether a decode row of this seat is attended on the CPU lane.
  bool attends_on_cpu(const SeatPages& seat) const {
    return placement.cpu_attention && seat.count[Tier::kGpu] == 0;
  }
};

/// Derives the shape. `tensors` are the stored sizes in model_tensors order. Throws Error{kInvalidArgument}
/// for a workload that does not fit the model's context.
RunShape make_run_shape(const ModelSpec& spec, std::span<const TensorSize> tensors,
                        const Placement& placement, const Workload& workload, const DeviceTraits& traits);

/// Makes `shape` that of the same placement with other weight percents.
void replace_weights(RunShape& shape, std::span<const TensorSize> tensors, const PerTier<int>& percent);
/// Sets the size of a slot and of a stage of the weights, and how many of them the rest of the shape asks
/// for.
void set_weight_slots(RunShape& shape, std::int64_t slot_bytes, std::int64_t stage_bytes);

}  // namespace sluice::policy
