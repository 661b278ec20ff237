#include "apps/plan/explain.h"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/units.h"
#include "policy/rates.h"

namespace sluice::apps {
namespace {

using policy::LaneKind;
using policy::PlanCandidate;
using policy::Simulation;

template <class... Args>
void add(std::string& to, fmt::format_string<Args...> text, Args&&... args) {
  fmt::format_to(std::back_inserter(to), text, std::forward<Args>(args)...);
}

/// What the lane brings, in words.
std::string_view meaning(LaneKind lane) {
  switch (lane) {
    case LaneKind::kDiskRead:
      return "reads from disk";
    case LaneKind::kDiskWrite:
      return "writes to disk";
    case LaneKind::kH2d:
      return "weights and KV on their way to the GPU";
    case LaneKind::kD2h:
      return "KV and activations on their way from the GPU";
    case LaneKind::kGpu:
      return "products and attention on the GPU";
    case LaneKind::kCpu:
      return "attention on the CPU";
    default:
      return "small transfers between CPU and GPU";
  }
}

double gain_percent(const PlanCandidate& faster, const PlanCandidate& slower) {
  return 100 * (faster.tokens_per_sec() / slower.tokens_per_sec() - 1);
}

void add_disk(std::string& text, const ExplainedPlan& plan) {
  const policy::PlanProblem& problem = *plan.problem;
  const PlanCandidate& best = plan.result.best;
  const policy::SimulatedLane& reads = best.simulation.lanes[lane_index(LaneKind::kDiskRead)];
  const std::optional<PlanCandidate>& other = plan.result.other_disk_use;
  if (reads.bytes > 0) {
    const int weights = best.placement.percents.weights[Tier::kDisk];
    const int kv = best.placement.percents.kv_cache[Tier::kDisk];
    add(text, "  disk       {} % of the weights and {} % of the KV cache: ", weights, kv);
    if (other && best.tokens_per_sec() > other->tokens_per_sec()) {
      add(text, "{:.1f} % faster than the best without it, {}\n", gain_percent(best, *other),
          flags_of(other->placement, other->attention_threads));
    } else if (other) {
      add(text, "the best without it takes {:.2f} s for a request, longer than --max-latency\n",
          other->simulation.longest_request_sec);
    } else {
      add(text, "memory does not hold them{}\n",
          weights > 0 ? "; fewer bytes a weight (--allow-formats) would bring most" : "");
    }
    return;
  }
  if (other) {
    add(text,
        "  disk       not used: {} % of the weights and {} % of the KV cache there would bring {:.1f} %, and "
        "below {:.1f} % its rate is not certain enough\n",
        other->placement.percents.weights[Tier::kDisk], other->placement.percents.kv_cache[Tier::kDisk],
        gain_percent(*other, best), 100 * (policy::kLeastDiskGain - 1));
    return;
  }
  const double rate = policy::disk_bytes_per_sec(problem.hardware.disk.read) / 1e9;
  const double pass = best.simulation.total_sec /
                      static_cast<double>(std::max<std::size_t>(1, best.simulation.passes.size()));
  add(text,
      "  disk       not used: a GiB of weights there takes {:.2f} s of every pass at {:.2f} GB/s; a pass "
      "takes {:.2f} s\n",
      gb(1_GiB) / rate, rate, pass);
}

void add_idle_memory(std::string& text, const ExplainedPlan& plan) {
  const policy::PlanProblem& problem = *plan.problem;
  if (!anything_fixed(problem.choices)) return;
  for (const Tier tier : {Tier::kGpu, Tier::kCpu}) {
    const std::int64_t idle =
        problem.budget_bytes[tier] - policy::needed_bytes(problem, plan.result.best.memory.total, tier);
    const bool streams = plan.result.best.placement.percents.weights[Tier::kGpu] < 100;
    if (streams && idle > problem.budget_bytes[tier] / 10)
      add(text, "  warning    your flags leave {} of the {} budget idle\n", format_bytes(idle),
          tier_name(tier));
  }
  if (plan.without_choices && plan.result.best.tokens_per_sec() < 0.9 * *plan.without_choices) {
    add(text, "  warning    your flags cost {:.0f} %: {:.2f} tokens/s would be possible without them\n",
        100 * (1 - plan.result.best.tokens_per_sec() / *plan.without_choices), *plan.without_choices);
  }
}

nlohmann::ordered_json placement_json(const policy::Placement& p) {
  const auto percents = [](const PerTier<int>& share) {
    return nlohmann::ordered_json{share[Tier::kGpu], share[Tier::kCpu], share[Tier::kDisk]};
  };
  return {{"weights_percent", percents(p.percents.weights)},
          {"kv_cache_percent", percents(p.percents.kv_cache)},
          {"activations_percent", percents(p.percents.activations)},
          {"cpu_attention", p.cpu_attention},
          {"gpu_batch_size", p.gpu_batch_size},
          {"num_gpu_batches", p.num_gpu_batches},
          {"prefetch_depth", p.prefetch_depth},
          {"max_tokens_per_gpu_batch", p.max_tokens_per_gpu_batch},
          {"mixing", p.mixing},
          {"prefetch", p.prefetch},
          {"kv_format", kv_format_name(p.kv_format)}};
}

nlohmann::ordered_json candidate_json(const PlanCandidate& plan) {
  return {{"tokens_per_sec", plan.tokens_per_sec()}, {"placement", placement_json(plan.placement)}};
}

}  // namespace

bool anything_fixed(const policy::PlanChoices& choices) {
  return choices.weights || choices.kv_cache || choices.activations || choices.cpu_attention ||
         choices.gpu_batch_size > 0 || choices.num_gpu_batches > 0 || choices.prefetch_depth > 0 ||
         choices.max_tokens_per_gpu_batch > 0 || choices.attention_threads > 0;
}

Wall wall_of(const Simulation& run) {
  Wall wall;
  double most = 0;
  for (std::size_t i = 0; i < policy::kNumLanes; ++i) {
    if (run.lanes[i].busy_sec <= most) continue;
    most = run.lanes[i].busy_sec;
    wall.lane = static_cast<LaneKind>(i);
  }
  wall.busy_share = most / run.total_sec;
  wall.bound_tokens_per_sec = static_cast<double>(run.generated_tokens) / most;
  return wall;
}

std::string flags_of(const policy::Placement& p, int attention_threads) {
  std::string text = fmt::format(
      "--percent {} --gpu-batch-size {} --num-gpu-batches {} --prefetch-depth {} "
      "--max-tokens-per-gpu-batch {}",
      policy::to_string(p.percents), p.gpu_batch_size, p.num_gpu_batches, p.prefetch_depth,
      p.max_tokens_per_gpu_batch);
  if (p.cpu_attention) text += " --cpu-cache-compute";
  if (attention_threads > 0) text += fmt::format(" --threads {}", attention_threads);
  if (!p.mixing) text += " --no-mixing";
  if (!p.prefetch) text += " --no-prefetch";
  if (p.kv_format != KvFormat::kF16) text += fmt::format(" --kv-format {}", kv_format_name(p.kv_format));
  return text;
}

std::string plan_text(const ExplainedPlan& plan) {
  const PlanCandidate& best = plan.result.best;
  const Simulation& run = best.simulation;
  std::string text;
  add(text, "plan for {} on {} ({})\n", plan.model, plan.machine, plan.source);
  add(text, "  flags      {}\n", flags_of(best.placement, best.attention_threads));
  add(text, "  work       {} requests, {} prompt tokens, {} generated; weights {}\n", best.num_requests,
      run.prompt_tokens, run.generated_tokens, plan.format);
  add(text, "  predicted  {:.2f} tokens/s: prefill {:.2f} s, decode {:.2f} s, {} passes\n",
      run.tokens_per_sec(), run.prefill_sec, run.decode_sec, run.passes.size());
  if (plan.problem->max_latency_sec > 0) {
    add(text, "  latency    {:.4g} s at most from a request's start to its end, of {:.4g} s\n",
        run.longest_request_sec, plan.problem->max_latency_sec);
  }
  if (best.attention_threads > 0) {
    add(text, "  threads    {} attend on the CPU, of {} that the profile measured\n", best.attention_threads,
        policy::attention_threads(plan.problem->hardware).back());
  }
  const Wall wall = wall_of(run);
  add(text, "  wall       {} ({}), busy {:.0f} % of the time; if it always were, {:.2f} tokens/s\n",
      lane_name(wall.lane), meaning(wall.lane), 100 * wall.busy_share, wall.bound_tokens_per_sec);
  add(text, "  {:<12} {:>12} {:>8} {:>8}\n", "lane", "bytes", "busy", "stalled");
  for (std::size_t i = 0; i < policy::kNumLanes; ++i) {
    const policy::SimulatedLane& lane = run.lanes[i];
    if (lane.steps == 0) continue;
    add(text, "  {:<12} {:>12} {:>6.1f} % {:>6.1f} %\n", lane_name(static_cast<LaneKind>(i)),
        lane.bytes > 0 ? format_bytes(lane.bytes) : "-", 100 * lane.busy_sec / run.total_sec,
        100 * lane.stalled_sec / run.total_sec);
  }
  for (const Tier tier : kTiers) {
    if (best.memory.total[tier] == 0 && plan.problem->budget_bytes[tier] == 0) continue;
    add(text, "  {} (budget {})\n", policy::to_string(best.memory, tier),
        format_bytes(plan.problem->budget_bytes[tier]));
  }
  const auto more = [&](const std::optional<double>& rate, std::string_view tier) {
    if (!rate) return;
    add(text, "  one more GiB of {} memory: {:+.1f} %\n", tier,
        100 * (std::max(*rate, run.tokens_per_sec()) / run.tokens_per_sec() - 1));
  };
  more(plan.with_more_gpu, "GPU");
  more(plan.with_more_cpu, "CPU");
  add_disk(text, plan);
  for (const PlanCandidate& other : plan.result.others) {
    add(text, "  other      {:.2f} tokens/s with {}\n", other.tokens_per_sec(),
        flags_of(other.placement, other.attention_threads));
  }
  add_idle_memory(text, plan);
  add(text, "  searched   {} placements estimated, {} simulated\n", plan.result.num_estimated,
      plan.result.num_simulated);
  return text;
}

nlohmann::ordered_json plan_json(const ExplainedPlan& plan) {
  using nlohmann::ordered_json;
  const PlanCandidate& best = plan.result.best;
  const Simulation& run = best.simulation;
  const Wall wall = wall_of(run);
  ordered_json lanes = ordered_json::array();
  for (std::size_t i = 0; i < policy::kNumLanes; ++i) {
    lanes.push_back({{"name", lane_name(static_cast<LaneKind>(i))},
                     {"steps", run.lanes[i].steps},
                     {"bytes", run.lanes[i].bytes},
                     {"busy_sec", run.lanes[i].busy_sec},
                     {"stalled_sec", run.lanes[i].stalled_sec}});
  }
  ordered_json memory;
  for (const Tier tier : kTiers) {
    memory[std::string(tier_name(tier))] = {{"planned_bytes", best.memory.total[tier]},
                                            {"budget_bytes", plan.problem->budget_bytes[tier]}};
  }
  ordered_json others = ordered_json::array();
  for (const PlanCandidate& other : plan.result.others) {
    others.push_back(candidate_json(other));
  }
  const auto optional = [](const std::optional<double>& value) {
    return value ? ordered_json(*value) : ordered_json();
  };
  return {{"kind", "plan"},
          {"model", plan.model},
          {"format", plan.format},
          {"machine", {{"name", plan.machine}, {"source", plan.source}}},
          {"placement", placement_json(best.placement)},
          {"flags", flags_of(best.placement, best.attention_threads)},
          {"attention_threads", best.attention_threads},
          {"requests", best.num_requests},
          {"prompt_tokens", run.prompt_tokens},
          {"generated_tokens", run.generated_tokens},
          {"tokens_per_sec", run.tokens_per_sec()},
          {"total_sec", run.total_sec},
          {"prefill_sec", run.prefill_sec},
          {"decode_sec", run.decode_sec},
          {"first_token_sec", run.first_token_sec},
          {"latency_sec", run.longest_request_sec},
          {"passes", run.passes.size()},
          {"wall",
           {{"lane", lane_name(wall.lane)},
            {"busy_share", wall.busy_share},
            {"bound_tokens_per_sec", wall.bound_tokens_per_sec}}},
          {"lanes", lanes},
          {"memory", memory},
          {"tokens_per_sec_with_one_more_gib",
           {{"gpu", optional(plan.with_more_gpu)}, {"cpu", optional(plan.with_more_cpu)}}},
          {"tokens_per_sec_without_choices", optional(plan.without_choices)},
          {"others", others},
          {"other_disk_use",
           plan.result.other_disk_use ? candidate_json(*plan.result.other_disk_use) : ordered_json()},
          {"estimated", plan.result.num_estimated},
          {"simulated", plan.result.num_simulated}};
}

}  // namespace sluice::apps
