#include "apps/generate/report.h"

#include <iterator>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/units.h"

namespace sluice::apps {
namespace {

double per_sec(std::int64_t amount, double sec) { return sec > 0 ? static_cast<double>(amount) / sec : 0; }

template <class... Args>
void add(std::string& to, fmt::format_string<Args...> text, Args&&... args) {
  fmt::format_to(std::back_inserter(to), text, std::forward<Args>(args)...);
}

void add_lanes(std::string& text, const offload::RunStats& stats) {
  add(text, "  {:<12} {:>12} {:>9} {:>8} {:>8}\n", "lane", "bytes", "GB/s", "busy", "stalled");
  for (const offload::LaneStats& lane : stats.lanes) {
    if (lane.steps == 0) continue;
    const auto share = [&](double sec) { return stats.wall_sec > 0 ? 100 * sec / stats.wall_sec : 0; };
    add(text, "  {:<12} {:>12} {:>9} {:>6.1f} % {:>6.1f} %\n", lane.name,
        lane.bytes > 0 ? format_bytes(lane.bytes) : "-",
        lane.bytes > 0 ? fmt::format("{:.2f}", per_sec(lane.bytes, lane.busy_sec) / 1e9) : "-",
        share(lane.busy_sec), share(lane.stalled_sec));
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

}  // namespace

std::string run_report(const offload::RunStats& stats, const RunCounts& counts,
                       const policy::Placement& placement) {
  std::string text;
  add(text, "run report\n");
  add(text, "  requests   {} of {} done", counts.done, counts.total);
  if (counts.done_before > 0) add(text, ", {} of them by an earlier run", counts.done_before);
  if (counts.refused > 0) add(text, ", {} refused", counts.refused);
  add(text, "\n  device     {}", stats.device);
  add(text, "\n  placement  {}, {} x {} sequences, CPU attention {}\n", policy::to_string(placement.percents),
      placement.gpu_batch_size, placement.num_gpu_batches, placement.cpu_attention ? "on" : "off");
  add(text, "  start      first layer computed after {:.3f} s, weights in place in {:.3f} s of them\n",
      stats.first_layer_sec, stats.load_sec);
  add(text, "  prefill    {} prompt tokens in {:.3f} s, {:.1f} tokens/s; first token after {:.3f} s\n",
      stats.prompt_tokens, stats.prefill_sec, per_sec(stats.prompt_tokens, stats.prefill_sec),
      stats.first_token_sec);
  add(text, "  decode     {} tokens in {:.3f} s, {:.1f} tokens/s\n", stats.decode_passes_tokens,
      stats.decode_sec, per_sec(stats.decode_passes_tokens, stats.decode_sec));
  add(text, "  total      {} tokens in {:.3f} s, {:.1f} tokens/s, {} passes\n", stats.generated_tokens,
      stats.wall_sec, per_sec(stats.generated_tokens, stats.wall_sec), stats.num_passes);
  add_lanes(text, stats);
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

nlohmann::ordered_json summary_json(const offload::RunStats& stats, const RunCounts& counts) {
  using nlohmann::ordered_json;
  ordered_json lanes = ordered_json::array();
  for (const offload::LaneStats& lane : stats.lanes) {
    lanes.push_back({{"name", lane.name},
                     {"bytes", lane.bytes},
                     {"steps", lane.steps},
                     {"busy_sec", lane.busy_sec},
                     {"stalled_sec", lane.stalled_sec}});
  }
  ordered_json memory;
  for (Tier tier : kTiers) {
    memory[std::string(tier_name(tier))] = {{"planned_bytes", stats.planned_bytes[tier]},
                                            {"reserved_bytes", stats.reserved_bytes[tier]}};
  }
  return {{"kind", "summary"},
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
}

}  // namespace sluice::apps
