#include "tests/e2e/lane_bytes.h"

#include <algorithm>

#include "core/sampling/sampling.h"
#include "kernels/ops/sample.h"
#include "policy/step.h"

namespace sluice::testing {
namespace {

using policy::LaneKind;

constexpr std::int64_t kToken = 64;     // tokens of a page
constexpr std::int64_t kSector = 4096;  // disk transfers are whole ones
constexpr std::int64_t round_up(std::int64_t bytes) { return (bytes + kSector - 1) / kSector * kSector; }

class Count {
 public:
  Count(const RunOutcome& outcome, std::span<const std::int64_t> stored_bytes)
      : shape_(outcome.shape),
        stored_bytes_(stored_bytes),
        activation_bytes_(dtype_bytes(outcome.shape.traits.activation_dtype)) {
    weights(outcome.passes);
    for (const policy::Pass& pass : outcome.passes) {
      for (std::size_t b = 0; b < pass.batches.size(); ++b) batch(pass, b);
    }
  }
  const std::array<std::int64_t, policy::kNumLanes>& bytes() const { return bytes_; }

 private:
  std::int64_t& on(LaneKind lane) { return bytes_[policy::lane_index(lane)]; }

  /// The slots are filled before the first pass and refilled once a unit is used: L + 1 times a pass. Disk
  /// parts are read two units further ahead. Without prefetch nothing is ahead: what the first embedding
  /// needs comes, and each pass's units, the last one's output unit only if a row is wanted of it.
  void weights(std::span<const policy::Pass> passes) {
    const auto num_passes = static_cast<std::int64_t>(passes.size());
    const std::int64_t layers = shape_.spec.num_layers;
    std::vector<PerTier<std::int64_t>> units(static_cast<std::size_t>(layers + 2));
    const std::vector<TensorSpec> tensors = model_tensors(shape_.spec);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      // What the embedding needs travels with the output unit.
      const std::int64_t unit = tensors[i].unit == 0 ? layers + 1 : tensors[i].unit;
      const std::int64_t stored =
          stored_bytes_.empty() ? tensors[i].rows * tensors[i].cols * 2 : stored_bytes_[i];
      units[static_cast<std::size_t>(unit)][shape_.tensors[i].tier] += round_up(stored);
    }
    const auto unit_of = [&](std::int64_t stream) {
      const std::int64_t position = stream % (layers + 1);
      return units[static_cast<std::size_t>(position == 0 ? layers + 1 : position)];
    };
    bool any_off_gpu = false;
    bool any_on_disk = false;
    for (const PerTier<std::int64_t>& unit : units) {
      any_on_disk = any_on_disk || unit[Tier::kDisk] > 0;
      any_off_gpu = any_off_gpu || unit[Tier::kCpu] + unit[Tier::kDisk] > 0;
    }
    if (!any_off_gpu) return;
    std::int64_t loaded = shape_.num_weight_slots + num_passes * (layers + 1);
    std::int64_t read = any_on_disk ? loaded + 2 : 0;
    if (!shape_.placement.prefetch) {
      const bool wants =
          !passes.empty() && std::ranges::any_of(passes.back().segments,
                                                 [](const auto& segment) { return segment.num_wanted > 0; });
      loaded = passes.empty() ? 0 : num_passes * (layers + 1) + (wants ? 1 : 0);
      read = loaded;
    }
    for (std::int64_t s = 0; s < loaded; ++s)
      on(LaneKind::kH2d) += unit_of(s)[Tier::kCpu] + unit_of(s)[Tier::kDisk];
    for (std::int64_t s = 0; s < read; ++s) on(LaneKind::kDiskRead) += unit_of(s)[Tier::kDisk];
  }

  void batch(const policy::Pass& pass, std::size_t number) {
    const std::int64_t gbs = shape_.placement.gpu_batch_size;
    std::int64_t rows = 0;
    std::int64_t wanted = 0;
    for (const policy::Segment& segment : pass.segments) {
      if (segment.seat / gbs != static_cast<std::int64_t>(number)) continue;
      rows += segment.num_tokens;
      wanted += segment.num_wanted;
      kv(segment);
    }
    if (rows == 0) return;
    on(LaneKind::kH2dUrgent) += rows * (4 + 4) + wanted * (4 + std::int64_t{sizeof(kernels::SampleRow)});
    on(LaneKind::kD2hUrgent) +=
        wanted * (std::int64_t{sizeof(kernels::SampledRow)} +
                  shape_.workload.max_top_logprobs * std::int64_t{sizeof(ScoredToken)});
    activations(shape_.activation_tier[number], rows, wanted > 0);
  }

  /// The residual stream leaves the GPU after the embedding and after each layer, and comes back before each
  /// layer and before the head.
  void activations(Tier tier, std::int64_t rows, bool has_head) {
    if (tier == Tier::kGpu) return;
    const std::int64_t bytes = rows * shape_.spec.hidden_dim * activation_bytes_;
    const std::int64_t stores = shape_.spec.num_layers + 1;
    const std::int64_t loads = shape_.spec.num_layers + (has_head ? 1 : 0);
    on(LaneKind::kD2h) += stores * bytes;
    on(LaneKind::kH2d) += loads * bytes;
    if (tier != Tier::kDisk) return;
    on(LaneKind::kDiskWrite) += stores * round_up(bytes);
    on(LaneKind::kDiskRead) += loads * round_up(bytes);
  }

  /// K and V of one segment in all layers, page by page.
  void kv(const policy::Segment& segment) {
    const policy::SeatPages& seat = shape_.seats.seats[static_cast<std::size_t>(segment.seat)];
    const std::int64_t element = shape_.placement.kv_format == KvFormat::kF32 ? 4 : 2;
    const std::int64_t token_bytes = 2 * shape_.spec.num_kv_heads * shape_.spec.head_dim * element;
    const std::int64_t page_bytes = kToken * token_bytes;
    const std::int64_t old_tokens = segment.first_kv;
    const std::int64_t all_tokens = old_tokens + segment.num_tokens;
    const bool cpu_attends = shape_.placement.cpu_attention && segment.decode && seat.count[Tier::kGpu] == 0;
    const std::int64_t layers = shape_.spec.num_layers;
    for (std::int64_t page = seat.count[Tier::kGpu]; page * kToken < all_tokens; ++page) {
      const bool on_disk = page >= seat.count[Tier::kGpu] + seat.count[Tier::kCpu];
      const std::int64_t first = page * kToken;
      const std::int64_t last = std::min(first + kToken, all_tokens);
      const std::int64_t new_tokens = last - std::max(first, std::min(old_tokens, last));
      const bool has_old = first < old_tokens;
      if (on_disk && has_old) on(LaneKind::kDiskRead) += layers * round_up(page_bytes);
      if (on_disk && new_tokens > 0) on(LaneKind::kDiskWrite) += layers * round_up(page_bytes);
      if (cpu_attends) continue;
      if (has_old) on(LaneKind::kH2d) += layers * page_bytes;
      if (new_tokens > 0) on(LaneKind::kD2h) += layers * (on_disk ? page_bytes : new_tokens * token_bytes);
    }
    if (!cpu_attends) return;
    const std::int64_t q_bytes = shape_.spec.num_heads * shape_.spec.head_dim * activation_bytes_;
    const std::int64_t kv_bytes = 2 * shape_.spec.num_kv_heads * shape_.spec.head_dim * activation_bytes_;
    on(LaneKind::kD2hUrgent) += layers * (q_bytes + kv_bytes);
    on(LaneKind::kH2dUrgent) += layers * q_bytes;
  }

  const policy::RunShape& shape_;
  const std::span<const std::int64_t> stored_bytes_;
  const std::int64_t activation_bytes_;  // of one element: 4 on the CPU device
  std::array<std::int64_t, policy::kNumLanes> bytes_{};
};

}  // namespace

std::array<std::int64_t, policy::kNumLanes> expected_lane_bytes(const RunOutcome& outcome,
                                                                std::span<const std::int64_t> stored_bytes) {
  return Count(outcome, stored_bytes).bytes();
}

std::array<std::int64_t, policy::kNumLanes> counted_lane_bytes(const RunOutcome& outcome) {
  std::array<std::int64_t, policy::kNumLanes> bytes{};
  for (std::size_t i = 0; i < policy::kNumLanes; ++i) bytes[i] = outcome.stats.lanes.at(i).bytes;
  return bytes;
}

}  // namespace sluice::testing
