#include "apps/generate/choose_placement.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <span>

#include "apps/plan/explain.h"
#include "core/error.h"
#include "core/log.h"
#include "core/units.h"
#include "offload/choose_device.h"
#include "offload/io/disk_dir.h"
#include "offload/memory/usable_memory.h"
#include "offload/plan_run.h"
#include "policy/memory_plan.h"
#include "policy/run_shape.h"

namespace sluice::apps {
namespace {

using policy::Placement;
using policy::PlanChoices;
using policy::PlanProblem;
using policy::PlanResult;

// A run without budgets may take at most this share of what is free: the engine refuses plans above 90 % of
// what is free when it starts, and others' needs change between the plan and the start.
constexpr double kUsableShare = 0.85;
// Of more requests than these, an even selection is planned with, and a block is judged full.
constexpr std::size_t kMostRequests = 1024;
// About a second.
constexpr std::int64_t kStepBudget = 6'000'000;
constexpr std::int64_t kLeastTokens = 64;
constexpr std::int64_t kMostTokens = 8192;

std::int64_t usable_share(std::int64_t bytes) {
  return static_cast<std::int64_t>(kUsableShare * static_cast<double>(bytes));
}

/// Most of what is free in the folder of the disk tier; nothing in a temporary folder that takes RAM, of
/// which the memory tiers may take all they can.
std::int64_t unstated_disk_budget(const std::filesystem::path& disk_dir) {
  std::filesystem::path folder = disk_dir;
  if (folder.empty()) {
    std::error_code error;
    folder = std::filesystem::temp_directory_path(error);
    if (error || offload::lies_in_memory(folder)) {
      log_info("no disk tier: the temporary folder {}; --disk-dir names another",
               error ? "cannot be used" : "lies in memory");
      return 0;
    }
  }
  return usable_share(offload::usable_disk_bytes(folder));
}

/// Stated budgets, and most of what is free where nothing is. On the CPU device both memory tiers are host
/// memory, which they share.
void set_run_budgets(PlanProblem& problem, const offload::EngineOptions& options) {
  const PerTier<std::int64_t>& stated = options.budget_bytes;
  const auto left = [](std::int64_t bytes, std::int64_t taken) {
    return std::max<std::int64_t>(0, bytes - std::max<std::int64_t>(0, taken));
  };
  const std::int64_t host = usable_share(offload::usable_host_bytes());
  std::int64_t& gpu = problem.budget_bytes[Tier::kGpu];
  std::int64_t& cpu = problem.budget_bytes[Tier::kCpu];
  gpu = stated[Tier::kGpu];
  cpu = stated[Tier::kCpu];
  if (const std::optional<std::int64_t> free = offload::device_free_bytes(options.device)) {
    problem.holds_page_table = gpu >= 0;
    if (gpu >= 0) problem.beside_gpu_bytes = offload::kKernelBytes;
    gpu = gpu < 0 ? usable_share(*free) : offload::arena_budget(gpu);
    if (cpu < 0) cpu = host;
  } else {
    if (gpu < 0 || cpu < 0) problem.host_bytes = std::max({host, gpu, cpu});
    if (gpu < 0) gpu = left(host, stated[Tier::kCpu]);
    if (cpu < 0) cpu = left(host, stated[Tier::kGpu]);
  }
  problem.budget_bytes[Tier::kDisk] = stated[Tier::kDisk];
  if (stated[Tier::kDisk] < 0) {
    problem.budget_bytes[Tier::kDisk] = unstated_disk_budget(options.disk_dir);
  }
}

PlanChoices choices_of(const PlacementConfig& stated) {
  PlanChoices choices;
  choices.cpu_attention = stated.cpu_cache_compute;
  choices.gpu_batch_size = stated.gpu_batch_size;
  choices.num_gpu_batches = stated.num_gpu_batches;
  choices.prefetch_depth = stated.prefetch_depth;
  choices.max_tokens_per_gpu_batch = stated.max_tokens_per_gpu_batch;
  choices.kv_format = stated.kv_format;
  choices.mixing = stated.mixing;
  choices.prefetch = stated.prefetch;
  return choices;
}

/// Everything on the GPU and one block for all requests; nothing if that does not fit.
std::optional<Placement> resident(const PlanProblem& problem) {
  const PlanChoices& choices = problem.choices;
  const std::int64_t requests = std::max<std::int64_t>(1, problem.workload.num_requests);
  Placement placement;
  placement.cpu_attention = choices.cpu_attention.value_or(false);
  placement.mixing = choices.mixing;
  placement.prefetch = choices.prefetch;
  placement.kv_format = choices.kv_format;
  placement.prefetch_depth = std::max(placement.prefetch_depth, choices.prefetch_depth);
  placement.num_gpu_batches = std::max<std::int64_t>(1, choices.num_gpu_batches);
  placement.gpu_batch_size = choices.gpu_batch_size;
  if (placement.gpu_batch_size == 0) {
    placement.gpu_batch_size = div_up(requests, placement.num_gpu_batches);
  } else if (choices.num_gpu_batches == 0) {
    placement.num_gpu_batches = div_up(requests, placement.gpu_batch_size);
  }
  const std::int64_t size = placement.gpu_batch_size;
  if (size > policy::kMostGpuBatchSize || placement.num_gpu_batches > policy::kMostGpuBatches)
    return std::nullopt;
  std::int64_t tokens = choices.max_tokens_per_gpu_batch;
  if (tokens > 0 && tokens < size) return std::nullopt;
  if (tokens == 0) tokens = std::max(size, std::min(kMostTokens, size * problem.workload.max_prompt_len));
  for (;; tokens = std::max(size, tokens / 2)) {
    placement.max_tokens_per_gpu_batch = tokens;
    const policy::MemoryPlan memory = make_memory_plan(
        make_run_shape(problem.spec, problem.sizes, placement, problem.workload, problem.traits),
        problem.weights_on_disk);
    if (fits(problem, memory)) return placement;
    if (choices.max_tokens_per_gpu_batch > 0 || tokens <= std::max(size, kLeastTokens)) return std::nullopt;
  }
}

/// With bits that do not depend on the block, either the CPU attends for all sequences or for none: the two
/// round differently on a GPU.
std::vector<PlanChoices> choices_to_try(const PlanChoices& choices, const offload::EngineOptions& options) {
  if (options.batch_invariance == kernels::BatchInvariance::kOff ||
      options.device.kind != offload::DeviceChoice::Kind::kCuda) {
    return {choices};
  }
  std::vector<PlanChoices> tried;
  if (choices.cpu_attention != true) {
    tried.push_back(choices);
    tried.back().cpu_attention = false;
  }
  if (choices.cpu_attention != false) {
    tried.push_back(choices);
    tried.back().cpu_attention = true;
    tried.back().kv_cache = PerTier<int>{{0, 100, 0}};
  }
  return tried;
}

/// Throws Error{kOutOfMemory} if nothing fits.
PlanResult solve(PlanProblem problem, const offload::EngineOptions& options) {
  std::optional<PlanResult> best;
  policy::PlanRefusal refusal;
  for (const PlanChoices& choices : choices_to_try(problem.choices, options)) {
    problem.choices = choices;
    std::optional<PlanResult> found = make_plan(problem, &refusal);
    if (found && (!best || found->best.tokens_per_sec() > best->best.tokens_per_sec()))
      best = std::move(found);
  }
  SLUICE_CHECK(best.has_value(), Code::kOutOfMemory, refusal.problem, refusal.remedy);
  return *std::move(best);
}

std::string device_text(const offload::DeviceChoice& device) {
  return device.kind == offload::DeviceChoice::Kind::kCuda ? fmt::format("cuda:{}", device.ordinal) : "cpu";
}

KnownProfile profile_for(const GenerateConfig& config, const PlanProblem& problem,
                         const offload::EngineOptions& options) {
  const std::string device = device_text(options.device);
  const std::string here = device_description(device);
  if (!config.compute.hardware.empty()) return named_profile(config.compute.hardware, here);
  if (auto own = user_profile(here)) return *std::move(own);
  // What fits does not depend on rates: nothing is measured for a run that cannot be.
  PlanProblem any_machine = problem;
  any_machine.step_budget = 0;
  solve(any_machine, options);
  return measured_profile(device, options.disk_dir.string());
}

}  // namespace

PlanProblem plan_problem(const PlacementConfig& stated, const offload::WeightSource& weights,
                         const RunWork& work, const offload::EngineOptions& options) {
  PlanProblem problem;
  problem.spec = weights.spec();
  problem.sizes = weights.sizes();
  for (const offload::SourceTensor& tensor : weights.tensors())
    problem.formats.push_back(tensor.format.encoding);
  problem.workload = work.workload;
  problem.fill_block = work.fill_block || work.requests.size() > kMostRequests;
  if (!work.fill_block) problem.most_seats = std::ssize(work.requests);
  const std::size_t stride = div_up(work.requests.size(), kMostRequests);
  for (std::size_t i = 0; i < work.requests.size(); i += stride) problem.requests.push_back(work.requests[i]);
  problem.traits = offload::run_traits(weights, options, offload::device_kind(options.device));
  problem.weights_on_disk = weights.synthetic();
  problem.choices = choices_of(stated);
  problem.choices.attention_threads = options.num_threads;
  problem.step_budget = kStepBudget;
  set_run_budgets(problem, options);
  return problem;
}

ChosenPlacement choose_placement(const GenerateConfig& config, const offload::WeightSource& weights,
                                 const RunWork& work, const offload::EngineOptions& options) {
  PlanProblem problem = plan_problem(config.placement, weights, work, options);
  if (const std::optional<Placement> placement = resident(problem)) return {*placement, 0, std::nullopt};
  ChosenPlacement chosen;
  chosen.profile = profile_for(config, problem, options);
  problem.hardware = chosen.profile->hardware;
  const auto start = std::chrono::steady_clock::now();
  const PlanResult plan = solve(problem, options);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  chosen.placement = plan.best.placement;
  // A profile of a larger machine knows of more threads than there are here.
  if (plan.best.attention_threads < offload::default_threads(options.device))
    chosen.num_threads = plan.best.attention_threads;
  log_info("planned with {} in {:.2f} s: {}", chosen.profile->origin, took.count(),
           flags_of(chosen.placement, chosen.num_threads));
  return chosen;
}

}  // namespace sluice::apps
