// Turns "this step reads A and writes B" into waits. Lanes finish in order, so one number per lane says all
// about the past; a step waits for the last conflicting access of each other lane, and on a disk lane, whose
// steps overlap, of its own lane too. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "policy/run_shape.h"
#include "policy/step.h"

namespace sluice::policy {

/// Memory that steps of different lanes share. Each kind is an array of instances.
enum class ResourceKind : std::uint8_t {
  kWeightSlot,   ///< [weight slot]
  kWeightStage,  ///< [stage slot * pieces + piece of the unit's disk part]
  kInputs,       ///< [pass parity * batches + batch]
  kActSlot,      ///< [GPU residual slot]
  kActBuffer,    ///< [CPU residual buffer]
  kActFile,      ///< [disk residual]
  kWindow,       ///< [GPU KV window]
  kKvStage,      ///< [CPU KV stage]
  kKvCpu,        ///< [unit * batches + batch]: CPU-resident pages
  kKvDisk,       ///< [unit * batches + batch]
  kSetQkv,
  kSetAttnGpu,
  kSetAttnCpu,
  kTwinQkv,
  kTwinAttn,  ///< [set]; attention rows by the lane that made them
  kResults,   ///< [batch]
  kGpuTurn,   ///< [0]: no memory, but how far the gpu lane has come; used without prefetch
};
inline constexpr std::size_t kNumResourceKinds = 17;

enum class HazardKind : std::uint8_t { kReadAfterWrite, kWriteAfterRead, kWriteAfterWrite };
inline constexpr std::size_t kNumHazardKinds = 3;

struct Access {
  ResourceKind kind = ResourceKind::kWeightSlot;
  std::int64_t index = 0;
  bool write = false;
};

/// Number of instances of each kind.
std::array<std::int64_t, kNumResourceKinds> resource_counts(const RunShape& shape);

class HazardTracker {
 public:
  explicit HazardTracker(const RunShape& shape);

  /// Records that `step` (whose lane and seq are set) makes these accesses, and fills in its waits: at most
  /// one per other lane, and none that its lane's past or another of its waits implies.
  void order(Step& step, std::span<const Access> accesses);

  /// For mutation tests: from now on leave out the waits of one kind of hazard on one kind of resource.
  void drop(ResourceKind resource, HazardKind hazard);

 private:
  using PerLane = std::array<std::int64_t, kNumLanes>;
  /// Of a resource: the seq of the last access on each lane whose bit is set.
  struct LastOfLanes {
    PerLane seq{};
    unsigned lanes = 0;
    void set(std::size_t lane, std::int64_t last) {
      seq[lane] = last;
      lanes |= 1U << lane;
    }
  };
  struct State {
    LastOfLanes write, read;
  };

  std::array<std::vector<State>, kNumResourceKinds> states_;
  /// What is surely finished when step `seq` of `lane` is; nothing is remembered of steps long past.
  const PerLane& clock_of(std::size_t lane, std::int64_t seq) const;

  static constexpr std::int64_t kRemembered = 4096;
  std::array<std::vector<PerLane>, kNumLanes> clocks_;  // of the last kRemembered steps of each lane
  std::array<std::int64_t, kNumLanes> last_seq_{};
  std::array<std::int64_t, kNumLanes>
      own_known_{};  // disk lanes: own steps finished when the last one starts
  std::array<std::array<bool, kNumHazardKinds>, kNumResourceKinds> dropped_{};
};

}  // namespace sluice::policy
