#include "policy/planner.h"

#include <algorithm>
#include <tuple>

#include "core/error.h"
#include "policy/fill_memory.h"
#include "policy/plan_refusal.h"
#include "policy/plan_search.h"

namespace sluice::policy {
namespace {

constexpr double kRoundedUp = 1.001;  // more than four digits round down

/// How far beyond the latency bound a plan is.
double excess_sec(const PlanProblem& problem, const PlanCandidate& plan) {
  if (problem.max_latency_sec == 0) return 0;
  return std::max(0.0, plan.simulation.longest_request_sec - problem.max_latency_sec);
}

PlanProblem without_disk(PlanProblem problem) {
  problem.disk_use = DiskUse::kNone;
  return problem;
}

/// Whether what is stated leaves it open.
bool may_leave_disk(const PlanChoices& choices) {
  const auto states_disk = [](const std::optional<PerTier<int>>& share) {
    return share && (*share)[Tier::kDisk] > 0;
  };
  return !states_disk(choices.weights) && !states_disk(choices.kv_cache) && !states_disk(choices.activations);
}

/// Puts the best plan without the disk in place of one that gains too little by it.
void prefer_no_disk(const PlanProblem& problem, PlanResult& found) {
  if (!uses_disk(found.best.placement) || !may_leave_disk(problem.choices)) return;
  PlanProblem without = without_disk(problem);
  without.step_budget /= 2;
  std::optional<PlanResult> other = detail::PlanSearch(without).run();
  if (!other) return;
  other->num_estimated += found.num_estimated;
  other->num_simulated += found.num_simulated;
  const double gain = found.best.tokens_per_sec() / other->best.tokens_per_sec();
  const bool in_time = excess_sec(problem, other->best) <= excess_sec(problem, found.best);
  if (in_time && gain < kLeastDiskGain) {
    if (gain > 1) other->other_disk_use = std::move(found.best);
    found = *std::move(other);
  } else {
    found.num_estimated = other->num_estimated;
    found.num_simulated = other->num_simulated;
    found.other_disk_use = std::move(other->best);
  }
}

}  // namespace

bool uses_disk(const Placement& placement) {
  const Percents& percents = placement.percents;
  return percents.weights[Tier::kDisk] > 0 || percents.kv_cache[Tier::kDisk] > 0 ||
         percents.activations[Tier::kDisk] > 0;
}

std::optional<PlanResult> make_plan(const PlanProblem& problem, PlanRefusal* refusal) {
  SLUICE_CHECK(!problem.requests.empty(), Code::kInvalidArgument, "a plan needs requests",
               "give lengths, or an input");
  const PlanChoices& choices = problem.choices;
  SLUICE_CHECK(
      choices.max_tokens_per_gpu_batch == 0 || choices.max_tokens_per_gpu_batch >= choices.gpu_batch_size,
      Code::kInvalidArgument,
      fmt::format("--max-tokens-per-gpu-batch {} is below --gpu-batch-size {}",
                  choices.max_tokens_per_gpu_batch, choices.gpu_batch_size),
      "a decode pass takes a row of each sequence: raise the first or lower the second");
  std::optional<PlanResult> result = detail::PlanSearch(problem).run();
  if (result) prefer_no_disk(problem, *result);
  if (!result && refusal != nullptr) *refusal = detail::refuse_plan(problem);
  return result;
}

std::optional<PlanCandidate> improve_plan(const PlanProblem& problem, const PlanCandidate& start) {
  if (uses_disk(start.placement)) return detail::PlanSearch(problem).improve(start);
  const PlanProblem without = without_disk(problem);
  return detail::PlanSearch(without).improve(start);
}

bool is_better(const PlanProblem& problem, const PlanCandidate& plan, const PlanCandidate& other) {
  return std::tuple(excess_sec(problem, plan), -plan.tokens_per_sec()) <
         std::tuple(excess_sec(problem, other), -other.tokens_per_sec());
}

void check_latency(const PlanProblem& problem, const PlanCandidate& plan) {
  const double sec = plan.simulation.longest_request_sec;
  const double allowed = problem.max_latency_sec;
  SLUICE_CHECK(allowed == 0 || sec <= allowed, Code::kInvalidArgument,
               fmt::format("--max-latency {:.4g} cannot be kept: the smallest latency that was found is "
                           "{:.4g} s, for {} new tokens",
                           allowed, sec, problem.workload.max_gen_len),
               fmt::format("allow --max-latency {:.4g}, generate fewer tokens, or give more GPU memory",
                           sec * kRoundedUp));
}

std::optional<PlanCandidate> predict(const PlanProblem& problem, const Placement& asked) {
  const Placement placement = overlapping(asked);
  const RunShape shape =
      make_run_shape(problem.spec, problem.sizes, placement, problem.workload, problem.traits);
  PlanCandidate candidate{placement, make_memory_plan(shape, problem.weights_on_disk), {}, 0, 0};
  if (!fits(problem, candidate.memory)) return std::nullopt;
  const std::vector<RequestLength> requests = detail::requests_for(problem, placement);
  candidate.num_requests = std::ssize(requests);
  candidate.attention_threads = detail::usable_threads(placement, problem.choices.attention_threads);
  candidate.simulation =
      simulate(shape, problem.hardware, requests,
               {.formats = problem.formats, .attention_threads = candidate.attention_threads});
  return candidate;
}

}  // namespace sluice::policy
