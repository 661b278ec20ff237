// The placement of a run for which nobody states percents. One thread.
#pragma once

#include <optional>

#include "apps/generate/config.h"
#include "apps/generate/requests.h"
#include "apps/profile/find_profile.h"
#include "offload/engine.h"
#include "offload/weights/weight_source.h"
#include "policy/placement.h"
#include "policy/planner.h"

namespace sluice::apps {

struct ChosenPlacement {
  policy::Placement placement;
  int num_threads = 0;                  ///< of the compute pool; 0: as `options` says
  std::optional<KnownProfile> profile;  ///< that was counted with; empty where there was nothing to choose
};

/// Everything in GPU memory and one block for all requests if the budgets allow that: then nothing is
/// measured or searched. Else what the planner finds the fastest, with what `config` states kept: it counts
/// with the profile that `config` names, the user's own, or a short measurement, and says which, and what it
/// chose as flags. `options` gives device, budgets, folder and how weights move. Throws Error{kOutOfMemory}
/// with the missing bytes and the remedy if nothing fits, and Error{kInvalidArgument} for statements that
/// contradict each other.
ChosenPlacement choose_placement(const GenerateConfig& config, const offload::WeightSource& weights,
                                 const RunWork& work, const offload::EngineOptions& options);

/// The problem that choose_placement solves, its hardware left out.
policy::PlanProblem plan_problem(const PlacementConfig& stated, const offload::WeightSource& weights,
                                 const RunWork& work, const offload::EngineOptions& options);

}  // namespace sluice::apps
