// What the planner and the simulation say of a point.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "apps/sweep/points.h"
#include "core/tier.h"
#include "policy/hardware.h"
#include "policy/planner.h"

namespace sluice::apps {

struct PointPlan {
  policy::PlanCandidate candidate;
  std::string format;  ///< of the decoder layers' matrices
};

/// Immutable after construction, thread-safe.
class Predictor {
 public:
  /// Reads the profiles that the points name. `step_budget` bounds the search of a planned point
  /// (PlanProblem). Throws Error{kNotFound, kInvalidArgument}.
  Predictor(std::span<const SweepPoint> points, std::int64_t step_budget);

  /// The planner's choice, or where the point states its percents that placement with the defaults of
  /// `generate`. Throws Error{kOutOfMemory} with the missing bytes, Error{kInvalidArgument, kUnsupported} for
  /// flags that contradict each other or that no prediction knows.
  PointPlan predict(const SweepPoint& point) const;

  const std::map<std::string, policy::HardwareProfile>& profiles() const { return profiles_; }

 private:
  std::map<std::string, policy::HardwareProfile> profiles_;
  const std::int64_t step_budget_;
};

}  // namespace sluice::apps
