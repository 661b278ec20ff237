#include "policy/hazards.h"

#include <algorithm>
#include <bit>

#include "core/error.h"

namespace sluice::policy {
namespace {

/// Calls `visit` with each lane whose bit is set, in order.
template <class Visit>
void for_each_lane(unsigned lanes, Visit visit) {
  for (; lanes != 0; lanes &= lanes - 1) visit(static_cast<std::size_t>(std::countr_zero(lanes)));
}

}  // namespace

std::array<std::int64_t, kNumResourceKinds> resource_counts(const RunShape& shape) {
  const std::int64_t batches = shape.placement.num_gpu_batches;
  std::array<std::int64_t, kNumResourceKinds> counts{};
  const auto set = [&](ResourceKind kind, std::int64_t count) {
    counts[static_cast<std::size_t>(kind)] = count;
  };
  set(ResourceKind::kWeightSlot, shape.num_weight_slots);
  set(ResourceKind::kWeightStage, shape.num_weight_stages * shape.max_pieces);
  set(ResourceKind::kInputs, 2 * batches);
  set(ResourceKind::kActSlot, shape.num_activation_slots);
  set(ResourceKind::kActBuffer, shape.num_activation_buffers);
  set(ResourceKind::kActFile, batches);
  set(ResourceKind::kWindow, shape.num_windows);
  set(ResourceKind::kKvStage, shape.num_kv_stages);
  set(ResourceKind::kKvCpu, num_units(shape.spec) * batches);
  set(ResourceKind::kKvDisk, num_units(shape.spec) * batches);
  for (ResourceKind kind : {ResourceKind::kSetQkv, ResourceKind::kSetAttnGpu, ResourceKind::kSetAttnCpu,
                            ResourceKind::kTwinQkv, ResourceKind::kTwinAttn}) {
    set(kind, shape.num_sets);
  }
  set(ResourceKind::kResults, batches);
  set(ResourceKind::kGpuTurn, 1);
  return counts;
}

HazardTracker::HazardTracker(const RunShape& shape) {
  const auto counts = resource_counts(shape);
  for (std::size_t kind = 0; kind < kNumResourceKinds; ++kind) {
    states_[kind].resize(static_cast<std::size_t>(counts[kind]));
  }
  for (auto& lane : clocks_) lane.reserve(kRemembered);  // touched as steps come
}

const HazardTracker::PerLane& HazardTracker::clock_of(std::size_t lane, std::int64_t seq) const {
  static constexpr PerLane kNothing{};
  if (seq == 0 || seq <= last_seq_[lane] - kRemembered) return kNothing;
  return clocks_[lane][static_cast<std::size_t>(seq % kRemembered)];
}

void HazardTracker::order(Step& step, std::span<const Access> accesses) {
  const std::size_t own = lane_index(step.lane);
  PerLane needed{};
  unsigned lanes = 0;  // bit i: something of lane i is needed
  const auto depend_on = [&](const LastOfLanes& earlier, ResourceKind resource, HazardKind hazard) {
    if (dropped_[static_cast<std::size_t>(resource)][static_cast<std::size_t>(hazard)]) return;
    for_each_lane(earlier.lanes,
                  [&](std::size_t lane) { needed[lane] = std::max(needed[lane], earlier.seq[lane]); });
    lanes |= earlier.lanes;
  };
  for (const Access& access : accesses) {
    const State& state =
        states_[static_cast<std::size_t>(access.kind)].at(static_cast<std::size_t>(access.index));
    depend_on(state.write, access.kind,
              access.write ? HazardKind::kWriteAfterWrite : HazardKind::kReadAfterWrite);
    if (access.write) depend_on(state.read, access.kind, HazardKind::kWriteAfterRead);
  }
  for (const Access& access : accesses) {
    State& state = states_[static_cast<std::size_t>(access.kind)][static_cast<std::size_t>(access.index)];
    if (access.write) {
      state.read.lanes = state.write.lanes = 0;  // whoever waits for this step waits for everything before it
      state.write.set(own, step.seq);
    } else {
      state.read.set(own, step.seq);
    }
  }
  if (!is_disk(step.lane)) lanes &= ~(1U << own);  // its steps end in order
  // Vector clocks: what the lane's past implies, then the waits that no other wait implies.
  PerLane clock = clock_of(own, step.seq - 1);
  clock[own] = is_disk(step.lane) ? own_known_[own] : step.seq - 1;
  const auto implied_by_another = [&](std::size_t lane) {
    bool implied = false;
    for_each_lane(lanes & ~(1U << lane), [&](std::size_t other) {
      implied = implied || clock_of(other, needed[other])[lane] >= needed[lane];
    });
    return implied;
  };
  step.num_waits = 0;
  PerLane joined = clock;
  for_each_lane(lanes, [&](std::size_t lane) {
    if (needed[lane] <= clock[lane]) return;
    const PerLane& theirs = clock_of(lane, needed[lane]);
    for (std::size_t l = 0; l < kNumLanes; ++l) joined[l] = std::max(joined[l], theirs[l]);
    joined[lane] = std::max(joined[lane], needed[lane]);
    if (implied_by_another(lane)) return;
    step.waits[step.num_waits++] = {static_cast<LaneKind>(lane), needed[lane]};
  });
  own_known_[own] = joined[own];
  joined[own] = step.seq;
  const auto place = static_cast<std::size_t>(step.seq % kRemembered);
  if (clocks_[own].size() <= place) clocks_[own].resize(place + 1);
  clocks_[own][place] = joined;
  last_seq_[own] = step.seq;
}

void HazardTracker::drop(ResourceKind resource, HazardKind hazard) {
  dropped_[static_cast<std::size_t>(resource)][static_cast<std::size_t>(hazard)] = true;
}

}  // namespace sluice::policy
