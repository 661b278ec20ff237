// `sluice plan`: the best placement of a model on a machine, why, and how fast it will be.
#include <memory>
#include <string>

#include <CLI/App.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/plan/explain.h"
#include "apps/plan/problem.h"
#include "core/error.h"
#include "core/units.h"
#include "offload/executor/trace.h"

namespace sluice::apps {
namespace {

struct PlanCommandFlags {
  PlanFlags flags;
  std::string trace;
  bool json = false;
  bool marginal = true;
};

/// The predicted timeline, as a run's --trace writes the real one.
void write_trace(const std::string& path, const policy::PlanProblem& problem,
                 const policy::PlanCandidate& plan) {
  offload::TraceWriter writer(path);
  std::vector<policy::RequestLength> requests;
  for (std::int64_t i = 0; i < plan.num_requests; ++i)
    requests.push_back(problem.requests[static_cast<std::size_t>(i) % problem.requests.size()]);
  simulate(make_run_shape(problem.spec, problem.sizes, plan.placement, problem.workload, problem.traits),
           problem.hardware, requests,
           {.formats = problem.formats, .attention_threads = plan.attention_threads},
           [&](const policy::Schedule& schedule, const policy::Pass*,
               const std::vector<policy::StepTime>& times) { writer.add(schedule, times); });
  writer.end_run();
}

std::optional<double> with_one_more_gib(const policy::PlanProblem& problem,
                                        const policy::PlanCandidate& start, Tier tier) {
  policy::PlanProblem larger = problem;
  larger.budget_bytes[tier] += 1_GiB;
  if (larger.host_bytes >= 0) larger.host_bytes += 1_GiB;
  larger.step_budget /= 4;
  const auto plan = improve_plan(larger, start);
  return plan ? std::optional(plan->tokens_per_sec()) : std::nullopt;
}

void run(const PlanCommandFlags& options) {
  const policy::HardwareProfile hardware = hardware_of(options.flags);
  const std::vector<NamedProblem> problems = problems_of(options.flags, hardware);
  ExplainedPlan best;
  policy::PlanRefusal refusal;
  for (const NamedProblem& named : problems) {
    std::optional<policy::PlanResult> result = make_plan(named.problem, &refusal);
    if (!result) continue;
    if (best.problem != nullptr && !is_better(named.problem, result->best, best.result.best)) continue;
    best.result = std::move(*result);
    best.problem = &named.problem;
    best.format = named.format;
  }
  SLUICE_CHECK(best.problem != nullptr, Code::kOutOfMemory, refusal.problem, refusal.remedy);
  const policy::PlanProblem& problem = *best.problem;
  check_latency(problem, best.result.best);
  best.model = options.flags.model;
  const std::string& named = hardware.machine.name.empty() ? options.flags.hardware : hardware.machine.name;
  best.machine = named.empty() ? hardware.machine.device : named;
  best.source = hardware.machine.source;
  if (options.marginal) {
    best.with_more_gpu = with_one_more_gib(problem, best.result.best, Tier::kGpu);
    best.with_more_cpu = with_one_more_gib(problem, best.result.best, Tier::kCpu);
  }
  if (anything_fixed(problem.choices)) {
    policy::PlanProblem free = problem;
    free.choices = {};
    free.choices.kv_format = problem.choices.kv_format;
    free.choices.mixing = problem.choices.mixing;
    free.choices.prefetch = problem.choices.prefetch;
    if (const auto unbound = make_plan(free)) best.without_choices = unbound->best.tokens_per_sec();
  }
  if (!options.trace.empty()) write_trace(options.trace, problem, best.result.best);
  if (options.json) {
    fmt::print("{}\n", plan_json(best).dump(2));
  } else {
    fmt::print("{}", plan_text(best));
  }
}

}  // namespace

void add_plan_command(CLI::App& app) {
  auto options = std::make_shared<PlanCommandFlags>();
  CLI::App* command =
      app.add_subcommand("plan", "Choose the placement of a model on a machine, and predict its speed");
  add_plan_flags(*command, options->flags);
  command->option_defaults()->group("Result");
  command->add_flag("--json", options->json, "As JSON");
  command->add_flag("!--no-marginal", options->marginal, "Leave out what one more GiB would bring");
  command->add_option("--trace", options->trace, "Write the predicted timeline, for ui.perfetto.dev");
  command->footer(R"(Examples
  sluice profile
  sluice plan --model random:opt-30b --gpu-memory 16GiB --prompt-len 512 --gen-len 32
  sluice plan --model ~/stores/opt-30b --hardware t4-208gb --input requests.jsonl --json
The exit status is 0 only if a placement fits.)");
  command->callback([options] { run(*options); });
}

}  // namespace sluice::apps
