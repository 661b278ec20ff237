// The schedule as plain data: steps on lanes. SCHEDULE.md beside this file tells the story of a pass.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace sluice::policy {

/// A lane starts and finishes its steps in order, one at a time, except that a disk lane starts its next step
/// while earlier ones are in flight. The urgent lanes carry small activations past bulk transfers.
enum class LaneKind : std::uint8_t { kDiskRead, kDiskWrite, kH2d, kH2dUrgent, kD2h, kD2hUrgent, kGpu, kCpu };
inline constexpr std::size_t kNumLanes = 8;
constexpr std::size_t lane_index(LaneKind lane) { return static_cast<std::size_t>(lane); }
constexpr bool is_disk(LaneKind lane) { return lane == LaneKind::kDiskRead || lane == LaneKind::kDiskWrite; }
std::string_view lane_name(LaneKind lane);

enum class StepKind : std::uint8_t {
  kReadWeights,       ///< disk_read: a piece of a unit's disk weights -> CPU staging slot
  kLoadWeights,       ///< h2d: a piece of a unit's CPU or staged weights -> GPU ring slot
  kLoadInputs,        ///< h2d_urgent: token ids, positions and sampling parameters of a GPU batch
  kReadActivations,   ///< disk_read: residual stream -> its CPU buffer
  kLoadActivations,   ///< h2d: residual stream -> GPU slot
  kReadKv,            ///< disk_read: history pages of a GPU batch -> CPU KV stage
  kLoadKv,            ///< h2d: history pages from CPU memory and stage -> GPU window
  kEmbed,             ///< gpu: unit 0
  kPre,               ///< gpu: norm, q k v, K and V of GPU-attended rows into pages
  kAttend,            ///< gpu or cpu
  kSendQkv,           ///< d2h_urgent: q, k, v of CPU-attended rows
  kSendAttention,     ///< h2d_urgent: their attention output
  kStoreKv,           ///< d2h: new K and V of GPU-attended rows -> CPU pages, or whole pages -> CPU KV stage
  kWriteKv,           ///< disk_write: touched pages from the stage
  kPost,              ///< gpu: out projection and MLP
  kStoreActivations,  ///< d2h: residual stream -> its CPU buffer
  kWriteActivations,  ///< disk_write
  kHead,              ///< gpu: output unit, logits, sampling
  kFetchResults,      ///< d2h_urgent: chosen tokens and log-probs
};
std::string_view step_kind_name(StepKind kind);

/// The step must not start before `lane` has finished its first `count` steps.
struct Wait {
  LaneKind lane = LaneKind::kGpu;
  std::int64_t count = 0;
  friend bool operator==(const Wait&, const Wait&) = default;
};

/// One transfer or computation. Slot numbers are -1 where the kind does not use them.
struct Step {
  StepKind kind = StepKind::kPre;
  LaneKind lane = LaneKind::kGpu;
  std::int32_t pass =
      0;  ///< number of the pass whose data the step uses; for weights, the pass that emitted it
  std::int16_t unit = -1;  ///< see core/model/spec.h
  std::int16_t gpu_batch = -1;
  std::int16_t weight_slot = -1;        ///< GPU ring slot of the unit
  std::int16_t input_weight_slot = -1;  ///< kEmbed: slot of the unit that carries the input tensors
  std::int16_t stage_slot = -1;         ///< CPU staging slot of disk weights
  std::int16_t piece = -1;              ///< which piece of the unit
  std::int16_t act_slot = -1;           ///< GPU buffer of the residual stream
  std::int16_t window = -1;             ///< GPU KV window
  std::int16_t kv_stage = -1;           ///< CPU KV stage
  std::int16_t set = -1;                ///< q, k, v, attention buffers (and their CPU twins)
  std::int64_t seq = 0;                 ///< position on the lane, from 1, over all passes
  std::int64_t bytes = 0;               ///< moved by a transfer, 0 for computations
  std::array<Wait, kNumLanes> waits{};
  std::uint8_t num_waits = 0;
  /// No other lane's step of the pass waits for this one's end, and the lane's next step waits for nothing:
  /// an asynchronous lane may treat both as one.
  bool joins_next = false;

  std::span<const Wait> wait_list() const { return {waits.data(), num_waits}; }
};

/// The steps of one pass in the order in which they were emitted. Storage is reserved once.
struct Schedule {
  std::vector<Step> steps;
  std::array<std::vector<std::int32_t>, kNumLanes> lane_steps;  ///< indices into steps, in lane order
  std::array<std::int64_t, kNumLanes> last_seq{};  ///< each lane's last seq, over all passes so far

  void reserve(std::size_t max_steps);
  void clear();
};

}  // namespace sluice::policy
