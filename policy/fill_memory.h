// The largest shares of the weights on the fast tiers that the budgets leave room for, by bisection. Pure.
#pragma once

#include <cstdint>
#include <optional>

#include "policy/planner.h"

namespace sluice::policy::detail {

/// `placement` with its weight percents set: most on the GPU first, then most in CPU memory, the rest on
/// disk. Nothing if it does not fit with all weights on disk. A stated share (PlanChoices::weights) is kept.
std::optional<Placement> fill_weights(const PlanProblem& problem, Placement placement);

/// The plan of a placement.
MemoryPlan memory_of(const PlanProblem& problem, const Placement& placement);

}  // namespace sluice::policy::detail
