#include "apps/sweep/prediction.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "apps/generate/plan.h"
#include "apps/plan/problem.h"
#include "apps/profile/find_profile.h"
#include "core/error.h"
#include "core/units.h"

namespace sluice::apps {
namespace {

// They change a run's speed, and the simulation does not know them.
constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kUnpredicted = {
    {{"pin-weight", "1"}, {"piece-size", ""}, {"batch-invariant", "false"}, {"compress-weight", "false"}}};

void refuse_unpredicted(const SweepPoint& point) {
  for (const auto& [name, harmless] : kUnpredicted) {
    const std::string value = point.value(std::string(name));
    SLUICE_CHECK(value.empty() || value == harmless, Code::kUnsupported,
                 fmt::format("{}: {} is not predicted", name, value),
                 name == "compress-weight" ? "state format: int4_g64" : "leave it out, or run the sweep");
  }
}

PlanFlags parse_plan_flags(const SweepPoint& point) {
  PlanFlags flags;
  CLI::App app;
  add_plan_flags(app, flags);
  std::vector<std::string> words = arguments_of(point, FlagReader::kPlan);
  std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
  try {
    app.parse(words);
  } catch (const CLI::ParseError& e) {
    throw Error(Code::kInvalidArgument, e.what(), "see sluice plan --help");
  }
  return flags;
}

/// Budgets beyond those of the profile's machine are what a sweep asks about: no warning for each point.
void raise_memory(policy::HardwareProfile& hardware, const PlanFlags& flags) {
  const auto raise = [](double& gib, const std::string& budget, const char* flag) {
    if (!budget.empty())
      gib = std::max(gib, static_cast<double>(parse_bytes(budget, flag)) / static_cast<double>(1_GiB));
  };
  if (hardware.memory.gpu_is_host) return;  // both tiers share what there is
  raise(hardware.memory.gpu_gib, flags.gpu_memory, "--gpu-memory");
  raise(hardware.memory.cpu_gib, flags.cpu_memory, "--cpu-memory");
}

/// What `generate` makes of stated percents.
policy::Placement placement_of(const PlanFlags& flags, const policy::PlanProblem& problem) {
  const PlacementConfig stated{.percent = flags.percent,
                               .gpu_batch_size = flags.gpu_batch_size,
                               .num_gpu_batches = flags.num_gpu_batches,
                               .cpu_cache_compute = flags.cpu_cache_compute,
                               .kv_format = problem.choices.kv_format,
                               .max_tokens_per_gpu_batch = flags.max_tokens_per_gpu_batch,
                               .prefetch_depth = flags.prefetch_depth,
                               .mixing = !flags.no_mixing,
                               .prefetch = !flags.no_prefetch,
                               .piece_size = {}};
  policy::Placement placement =
      stated_placement(stated, problem.fill_block ? stated_block_size(stated) : std::ssize(problem.requests));
  validate(placement);
  return placement;
}

[[noreturn]] void refuse_placement(const policy::PlanProblem& problem, const policy::Placement& placement) {
  const policy::MemoryPlan memory = make_memory_plan(
      make_run_shape(problem.spec, problem.sizes, placement, problem.workload, problem.traits),
      problem.weights_on_disk);
  std::string lacks;
  for (const Tier tier : kTiers) {
    const std::int64_t missing =
        policy::needed_bytes(problem, memory.total, tier) - problem.budget_bytes[tier];
    if (missing <= 0) continue;
    lacks += fmt::format("{}{} of {} memory more than the {} there are", lacks.empty() ? "" : " and ",
                         format_bytes(missing), tier_name(tier), format_bytes(problem.budget_bytes[tier]));
    if (tier == Tier::kGpu && problem.beside_gpu_bytes > 0)
      lacks += fmt::format(" beside the {} of library kernels{}", format_bytes(problem.beside_gpu_bytes),
                           problem.holds_page_table ? " (the page table of pinned memory counts)" : "");
  }
  const std::int64_t both = memory.total[Tier::kGpu] + memory.total[Tier::kCpu];
  if (lacks.empty() && problem.host_bytes >= 0 && both > problem.host_bytes) {
    lacks = fmt::format("{} of host memory for both tiers, where {} are", format_bytes(both),
                        format_bytes(problem.host_bytes));
  }
  if (lacks.empty()) lacks = "more than its budgets as the engine runs it";
  throw Error(Code::kOutOfMemory, fmt::format("the placement needs {}", lacks),
              "lower its block or its share there, or state percent: plan");
}

PointPlan predict_one(const SweepPoint& point, const PlanFlags& flags, const NamedProblem& named) {
  if (!point.is_planned()) {
    const policy::Placement placement = placement_of(flags, named.problem);
    auto candidate = policy::predict(named.problem, placement);
    if (!candidate) refuse_placement(named.problem, placement);
    return {std::move(*candidate), named.format};
  }
  policy::PlanRefusal refusal;
  auto result = make_plan(named.problem, &refusal);
  SLUICE_CHECK(result, Code::kOutOfMemory, refusal.problem, refusal.remedy);
  return {std::move(result->best), named.format};
}

}  // namespace

Predictor::Predictor(std::span<const SweepPoint> points, std::int64_t step_budget)
    : step_budget_(step_budget) {
  for (const SweepPoint& point : points) {
    const std::string name = point.value("hardware");
    if (name.empty() || profiles_.contains(name)) continue;
    // Which device is here is not asked: a CUDA context of this process would take memory beside every run,
    // and each run warns of a profile that is not of its device.
    profiles_[name] = named_profile(name, "").hardware;
  }
}

PointPlan Predictor::predict(const SweepPoint& point) const {
  SLUICE_CHECK(point.problem.empty(), Code::kInvalidArgument, point.problem, "");
  refuse_unpredicted(point);
  const PlanFlags flags = parse_plan_flags(point);
  const auto profile = profiles_.find(flags.hardware);
  SLUICE_CHECK(profile != profiles_.end(), Code::kInvalidArgument, "a prediction needs a hardware profile",
               "state hardware: [NAME], or give --hardware NAME");
  policy::HardwareProfile hardware = profile->second;
  raise_memory(hardware, flags);
  std::optional<PointPlan> best;
  const policy::PlanProblem* of_best = nullptr;
  std::optional<Error> refused;
  std::vector<NamedProblem> problems = problems_of(flags, hardware);
  for (NamedProblem& named : problems) {
    named.problem.step_budget = step_budget_;
    try {
      PointPlan plan = predict_one(point, flags, named);
      if (best && !is_better(named.problem, plan.candidate, best->candidate)) continue;
      best = std::move(plan);
      of_best = &named.problem;
    } catch (const Error& e) {
      if (e.code() != Code::kOutOfMemory) throw;
      if (!refused) refused = e;
    }
  }
  if (!best) throw Error(*refused);
  check_latency(*of_best, best->candidate);
  return std::move(*best);
}

}  // namespace sluice::apps
