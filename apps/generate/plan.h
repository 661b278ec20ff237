// From settings and work to what the engine reserves. Reads how much memory is free; one thread.
#pragma once

#include "apps/generate/config.h"
#include "offload/engine.h"
#include "policy/placement.h"

namespace sluice::apps {

/// Placement (the stated one, or the rule's), budgets, folder and threads. Throws Error{kInvalidArgument}
/// naming the flag, Error{kOutOfMemory} if the rule finds no placement that fits.
offload::EngineOptions plan_engine(const GenerateConfig& config, const offload::ModelSource& model,
                                   const policy::Workload& workload);

/// Sequences of one block that the flags state: what the synthetic benchmark runs without --num-prompts.
std::int64_t stated_block_size(const PlacementConfig& config);

}  // namespace sluice::apps
