// A plan in words and as JSON. Pure.
#pragma once

#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "policy/planner.h"

namespace sluice::apps {

/// A plan with what is said about it.
struct ExplainedPlan {
  std::string model, format, machine, source;
  const policy::PlanProblem* problem = nullptr;
  policy::PlanResult result;
  std::optional<double> with_more_gpu, with_more_cpu;  ///< tokens/s with one more GiB
  std::optional<double> without_choices;               ///< tokens/s if nothing were fixed, where something is
};

/// The lane that works longest, the share of the time that it does, and the tokens/s if it always did.
struct Wall {
  policy::LaneKind lane = policy::LaneKind::kGpu;
  double busy_share = 0, bound_tokens_per_sec = 0;
};
Wall wall_of(const policy::Simulation& run);

/// Whether the caller states anything of the placement but formats, mixing and prefetch.
bool anything_fixed(const policy::PlanChoices& choices);

/// The flags of `sluice generate` that run the plan; `attention_threads` as PlanCandidate has them.
std::string flags_of(const policy::Placement& placement, int attention_threads = 0);

std::string plan_text(const ExplainedPlan& plan);
nlohmann::ordered_json plan_json(const ExplainedPlan& plan);

}  // namespace sluice::apps
