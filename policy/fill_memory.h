// The shares of the weights that leave the least to stream in what memory is left. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "policy/planner.h"

namespace sluice::policy::detail {

/// The plan of a placement.
MemoryPlan memory_of(const PlanProblem& problem, const Placement& placement);

/// Whole percents of the weights on the three tiers. Their order and what they take depend on the model and
/// the machine's rates alone: all placements of a search share one.
class WeightFill {
 public:
  /// Reads the model, its sizes, traits and rates from `problem`, which outlives this.
  explicit WeightFill(const PlanProblem& problem);

  /// `placement` with its weight percents set: of all whole percents that fit, those whose weights stream in
  /// the least time (what is off the GPU over the link, what is on disk from there, at once); of equals the
  /// most on the GPU, then in CPU memory. Nothing if none fit. A stated share (PlanChoices::weights) is kept.
  /// `problem` is that of the constructor, or one that differs in budgets, work and choices.
  std::optional<Placement> fill(const PlanProblem& problem, Placement placement);

 private:
  struct Share {
    PerTier<int> percent;
    double asked_sec = 0;   ///< of streaming what the percents ask for; orders the shares
    bool known = false;     ///< whether the rest is
    double stream_sec = 0;  ///< of what tensors make of it
    PerTier<std::int64_t> bytes{};
    std::int64_t slot_bytes = 0, stage_bytes = 0;
  };
  void measure(Share& share, const RunShape& like);
  double stream_sec(double off_gpu_bytes, double disk_bytes) const;

  const PlanProblem& problem_;
  double h2d_bytes_per_sec_ = 0, disk_bytes_per_sec_ = 0;
  double tensor_sec_ = 0;            // of the largest: shares are met within one
  std::vector<Share> shares_;        // that which streams fastest first
  std::optional<RunShape> scratch_;  // where one is placed
};

}  // namespace sluice::policy::detail
