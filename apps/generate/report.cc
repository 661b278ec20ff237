#include "apps/generate/report.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/units.h"
#include "policy/step.h"

namespace sluice::apps {
namespace {

std::optional<policy::LaneKind> lane_of(std::string_view name) {
  for (std::size_t i = 0; i < policy::kNumLanes; ++i) {
    if (lane_name(static_cast<policy::LaneKind>(i)) == name) return static_cast<policy::LaneKind>(i);
  }
  return std::nullopt;
}

double per_sec(std::int64_t amount, double sec) { return sec > 0 ? static_cast<double>(amount) / sec : 0; }

template <class... Args>
void add(std::string& to, fmt::format_string<Args...> text, Args&&... args) {
  fmt::format_to(std::back_inserter(to), text, std::forward<Args>(args)...);
}

/// The lane's rate while it works, over the highest that the profile has measured; 0 if not known.
double share_of_peak(const offload::LaneStats& lane, const Forecast* forecast) {
  const std::optional<policy::LaneKind> kind = lane_of(lane.name);
  if (forecast == nullptr || !kind) return 0;
  const double peak = forecast->peak_bytes_per_sec[policy::lane_index(*kind)];
  return peak > 0 ? per_sec(lane.bytes, lane.busy_sec) / peak : 0;
}

void add_lanes(std::string& text, const offload::RunStats& stats, const Forecast* forecast) {
  const auto peak = [&](const std::string& cell) {
    return forecast == nullptr ? std::string() : fmt::format(" {:>8}", cell);
  };
  add(text, "  {:<12} {:>12} {:>9}{} {:>8} {:>8}\n", "lane", "bytes", "GB/s", peak("of peak"), "busy",
      "stalled");
  for (const offload::LaneStats& lane : stats.lanes) {
    if (lane.steps == 0) continue;
    const auto share = [&](double sec) { return stats.wall_sec > 0 ? 100 * sec / stats.wall_sec : 0; };
    const double of_peak = share_of_peak(lane, forecast);
    add(text, "  {:<12} {:>12} {:>9}{} {:>6.1f} % {:>6.1f} %\n", lane.name,
        lane.bytes > 0 ? format_bytes(lane.bytes) : "-",
        lane.bytes > 0 ? fmt::format("{:.2f}", per_sec(lane.bytes, lane.busy_sec) / 1e9) : "-",
        peak(of_peak > 0 ? fmt::format("{:.0f} %", 100 * of_peak) : "-"), share(lane.busy_sec),
        share(lane.stalled_sec));
  }
}

/// One figure, predicted and measured.
struct Compared {
  std::string what;  ///< with its unit
  double predicted = 0, measured = 0;
  bool matters = true;  ///< not so for a lane that hardly works
  double difference() const { return measured > 0 ? predicted / measured - 1 : 0; }
};

std::vector<Compared> compare(const offload::RunStats& stats, const Forecast& forecast) {
  const policy::Simulation& run = forecast.predicted;
  std::vector<Compared> rows = {
      {"tokens/s", run.tokens_per_sec(), per_sec(stats.generated_tokens, stats.wall_sec)},
      {"prefill s", run.prefill_sec, stats.prefill_sec},
      {"decode s", run.decode_sec, stats.decode_sec}};
  for (const offload::LaneStats& lane : stats.lanes) {
    const std::optional<policy::LaneKind> kind = lane_of(lane.name);
    if (lane.steps == 0 || !kind) continue;
    const double predicted = run.lanes[policy::lane_index(*kind)].busy_sec;
    constexpr double kLeastShare = 0.01;
    rows.push_back({lane.name + " busy s", predicted, lane.busy_sec,
                    std::max(predicted, lane.busy_sec) >= kLeastShare * stats.wall_sec});
  }
  return rows;
}

double bound_tokens_per_sec(const offload::RunStats& stats, const Forecast& forecast) {
  return per_sec(stats.generated_tokens, forecast.floor.sec());
}

void add_bound(std::string& text, const offload::RunStats& stats, const Forecast* forecast) {
  if (forecast == nullptr) {
    add(text, "  bound      not known, nor a prediction: `sluice profile` measures this machine once\n");
    return;
  }
  const double bound = bound_tokens_per_sec(stats, *forecast);
  add(text, "  bound      {:.1f} tokens/s ({}), of which {:.0f} % are reached; by {}\n", bound,
      wall_of(forecast->floor), bound > 0 ? 100 * per_sec(stats.generated_tokens, stats.wall_sec) / bound : 0,
      forecast->origin);
}

void add_comparison(std::string& text, const offload::RunStats& stats, const Forecast& forecast) {
  add(text, "  {:<17} {:>9} {:>9} {:>10}\n", "", "predicted", "measured", "difference");
  for (const Compared& row : compare(stats, forecast)) {
    add(text, "  {:<17} {:>9.3f} {:>9.3f} {:>10}\n", row.what, row.predicted, row.measured,
        row.matters ? fmt::format("{:+.1f} %", 100 * row.difference()) : "-");
  }
}

void add_memory(std::string& text, const offload::RunStats& stats) {
  add(text, "  {:<12} {:>12} {:>12}\n", "memory", "planned", "reserved");
  for (Tier tier : kTiers) {
    add(text, "  {:<12} {:>12} {:>12}\n", tier_name(tier), format_bytes(stats.planned_bytes[tier]),
        format_bytes(stats.reserved_bytes[tier]));
  }
  if (stats.device_bytes > 0) {
    add(text, "  gpu memory taken since its start, as the driver counts it: {}\n",
        format_bytes(stats.device_bytes));
  }
  add(text, "  peak resident size {}\n", format_bytes(stats.peak_resident_bytes));
}

nlohmann::ordered_json forecast_json(const offload::RunStats& stats, const Forecast& forecast) {
  using nlohmann::ordered_json;
  const policy::Simulation& run = forecast.predicted;
  const double bound = bound_tokens_per_sec(stats, forecast);
  ordered_json busy;
  for (std::size_t i = 0; i < policy::kNumLanes; ++i) {
    if (run.lanes[i].steps > 0)
      busy[std::string(lane_name(static_cast<policy::LaneKind>(i)))] = run.lanes[i].busy_sec;
  }
  ordered_json difference;
  for (const Compared& row : compare(stats, forecast)) {
    if (row.matters) difference[row.what] = row.difference();
  }
  return {{"profile", forecast.origin},
          {"bound",
           {{"tokens_per_sec", bound},
            {"sec", forecast.floor.sec()},
            {"wall", wall_of(forecast.floor)},
            {"reached", bound > 0 ? per_sec(stats.generated_tokens, stats.wall_sec) / bound : 0}}},
          {"predicted",
           {{"tokens_per_sec", run.tokens_per_sec()},
            {"wall_sec", run.total_sec},
            {"prefill_sec", run.prefill_sec},
            {"decode_sec", run.decode_sec},
            {"first_token_sec", run.first_token_sec},
            {"num_passes", run.passes.size()},
            {"lane_busy_sec", busy},
            {"difference", difference}}}};
}

}  // namespace

std::string run_report(const offload::RunStats& stats, const RunCounts& counts,
                       const policy::Placement& placement, const Forecast* forecast) {
  std::string text;
  add(text, "run report\n");
  add(text, "  requests   {} of {} done", counts.done, counts.total);
  if (counts.done_before > 0) add(text, ", {} of them by an earlier run", counts.done_before);
  if (counts.refused > 0) add(text, ", {} refused", counts.refused);
  add(text, "\n  device     {}", stats.device);
  add(text, "\n  placement  {}, {} x {} sequences, CPU attention {}{}{}\n",
      policy::to_string(placement.percents), placement.gpu_batch_size, placement.num_gpu_batches,
      placement.cpu_attention ? "on" : "off", placement.mixing ? "" : ", no mixing",
      placement.prefetch ? "" : ", no prefetch");
  add(text, "  start      first layer computed after {:.3f} s, weights in place in {:.3f} s of them\n",
      stats.first_layer_sec, stats.load_sec);
  add(text, "  prefill    {} prompt tokens in {:.3f} s, {:.1f} tokens/s; first token after {:.3f} s\n",
      stats.prompt_tokens, stats.prefill_sec, per_sec(stats.prompt_tokens, stats.prefill_sec),
      stats.first_token_sec);
  add(text, "  decode     {} tokens in {:.3f} s, {:.1f} tokens/s\n", stats.decode_passes_tokens,
      stats.decode_sec, per_sec(stats.decode_passes_tokens, stats.decode_sec));
  add(text, "  total      {} tokens in {:.3f} s, {:.1f} tokens/s, {} passes\n", stats.generated_tokens,
      stats.wall_sec, per_sec(stats.generated_tokens, stats.wall_sec), stats.num_passes);
  // Of an interrupted run neither is known, with or without a profile.
  if (counts.done == counts.total && stats.num_passes > 0) add_bound(text, stats, forecast);
  add_lanes(text, stats, forecast);
  if (forecast != nullptr) add_comparison(text, stats, *forecast);
  add_memory(text, stats);
  return text;
}

std::string benchmark_report(const offload::RunStats& stats, const policy::Workload& workload) {
  const double total_sec = stats.prefill_sec + stats.decode_sec;
  std::string text;
  add(text, "num prompts: {}  prompt len: {}  gen len: {}\n", workload.num_requests, workload.max_prompt_len,
      workload.max_gen_len);
  for (Tier tier : kTiers) {
    add(text, "peak {} mem: {:.3f} GB{}", tier_name(tier), gb(stats.reserved_bytes[tier]),
        tier == Tier::kDisk ? "\n" : "  ");
  }
  add(text, "prefill latency: {:.3f} s  prefill throughput: {:.3f} token/s\n", stats.prefill_sec,
      per_sec(stats.prompt_tokens, stats.prefill_sec));
  add(text, "decode latency: {:.3f} s  decode throughput: {:.3f} token/s\n", stats.decode_sec,
      per_sec(stats.decode_passes_tokens, stats.decode_sec));
  add(text, "total latency: {:.3f} s  total throughput: {:.3f} token/s\n", total_sec,
      per_sec(stats.generated_tokens, total_sec));
  return text;
}

nlohmann::ordered_json summary_json(const offload::RunStats& stats, const RunCounts& counts,
                                    const Forecast* forecast) {
  using nlohmann::ordered_json;
  ordered_json lanes = ordered_json::array();
  for (const offload::LaneStats& lane : stats.lanes) {
    lanes.push_back({{"name", lane.name},
                     {"bytes", lane.bytes},
                     {"steps", lane.steps},
                     {"busy_sec", lane.busy_sec},
                     {"stalled_sec", lane.stalled_sec}});
    if (const double share = share_of_peak(lane, forecast); share > 0) lanes.back()["share_of_peak"] = share;
  }
  ordered_json memory;
  for (Tier tier : kTiers) {
    memory[std::string(tier_name(tier))] = {{"planned_bytes", stats.planned_bytes[tier]},
                                            {"reserved_bytes", stats.reserved_bytes[tier]}};
  }
  ordered_json json = {{"kind", "summary"},
                       {"requests", counts.total},
                       {"done", counts.done},
                       {"done_before", counts.done_before},
                       {"refused", counts.refused},
                       {"num_passes", stats.num_passes},
                       {"prompt_tokens", stats.prompt_tokens},
                       {"generated_tokens", stats.generated_tokens},
                       {"wall_sec", stats.wall_sec},
                       {"prefill_sec", stats.prefill_sec},
                       {"decode_sec", stats.decode_sec},
                       {"first_token_sec", stats.first_token_sec},
                       {"load_sec", stats.load_sec},
                       {"first_layer_sec", stats.first_layer_sec},
                       {"device_bytes", stats.device_bytes},
                       {"prefill_passes_tokens", stats.prefill_passes_tokens},
                       {"decode_passes_tokens", stats.decode_passes_tokens},
                       {"prefill_tokens_per_sec", per_sec(stats.prompt_tokens, stats.prefill_sec)},
                       {"decode_tokens_per_sec", per_sec(stats.decode_passes_tokens, stats.decode_sec)},
                       {"total_tokens_per_sec", per_sec(stats.generated_tokens, stats.wall_sec)},
                       {"lanes", lanes},
                       {"memory", memory},
                       {"peak_resident_bytes", stats.peak_resident_bytes}};
  if (forecast != nullptr) json.update(forecast_json(stats, *forecast));
  return json;
}

}  // namespace sluice::apps
