// Why nothing fits, with the missing bytes and the cheapest remedy. Pure.
#pragma once

#include "policy/planner.h"

namespace sluice::policy::detail {

/// For a problem of which no placement fits: of the few ways in which its smallest run can be placed, the one
/// whose missing bytes cost least says what to do.
PlanRefusal refuse_plan(const PlanProblem& problem);

}  // namespace sluice::policy::detail
