// From settings and work to what the engine reserves. Reads how much memory is free; one thread.
#pragma once

#include <optional>

#include "apps/generate/choose_placement.h"
#include "apps/generate/config.h"
#include "apps/profile/find_profile.h"
#include "offload/engine.h"
#include "policy/placement.h"

namespace sluice::apps {

struct EnginePlan {
  offload::EngineOptions options;
  bool searched = false;                ///< the planner chose the placement
  std::optional<KnownProfile> profile;  ///< that it counted with
};

/// Placement (the stated one, or choose_placement's), budgets, folder and threads. Throws
/// Error{kInvalidArgument} naming the flag, Error{kOutOfMemory} if no placement fits.
EnginePlan plan_engine(const GenerateConfig& config, const offload::ModelSource& model, const RunWork& work);

/// What --percent states, and FlexGen's defaults for the rest; a block that nobody states has no more seats
/// than `num_requests`. Not validated. Throws Error{kInvalidArgument} as parse_percents.
policy::Placement stated_placement(const PlacementConfig& stated, std::int64_t num_requests);

/// Sequences of one block that the flags state: what the synthetic benchmark runs without --num-prompts.
std::int64_t stated_block_size(const PlacementConfig& config);

}  // namespace sluice::apps
