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

}  // namespace

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
  if (!result && refusal != nullptr) *refusal = detail::refuse_plan(problem);
  return result;
}

std::optional<PlanCandidate> improve_plan(const PlanProblem& problem, const PlanCandidate& start) {
  return detail::PlanSearch(problem).improve(start);
}

bool is_better(const PlanProblem& problem, const PlanCandidate& plan, const PlanCandidate& other) {
  const auto excess_sec = [&](const PlanCandidate& each) {
    return problem.max_latency_sec > 0
               ? std::max(0.0, each.simulation.longest_request_sec - problem.max_latency_sec)
               : 0;
  };
  return std::tuple(excess_sec(plan), -plan.tokens_per_sec()) <
         std::tuple(excess_sec(other), -other.tokens_per_sec());
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
