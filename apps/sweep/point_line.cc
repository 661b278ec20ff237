#include "apps/sweep/point_line.h"

#include <algorithm>

#include <fmt/format.h>

#include "apps/generate/stats_file.h"
#include "apps/plan/explain.h"

namespace sluice::apps {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

/// Seconds from the first prompt of a block to its last token, when blocks follow each other.
double latency_sec(double total_sec, std::int64_t requests, std::int64_t block_size) {
  const double blocks =
      static_cast<double>(requests) / static_cast<double>(std::max<std::int64_t>(1, block_size));
  return total_sec / std::max(1.0, blocks);
}

}  // namespace

std::string_view status_name(PointStatus status) {
  switch (status) {
    case PointStatus::kOk:
      return "ok";
    case PointStatus::kRefused:
      return "refused";
    case PointStatus::kFailed:
      break;
  }
  return "failed";
}

PointStatus status_of(Code code) {
  switch (code) {
    case Code::kOk:
      return PointStatus::kOk;
    case Code::kInvalidArgument:
    case Code::kOutOfMemory:
    case Code::kUnsupported:
      return PointStatus::kRefused;
    default:
      return PointStatus::kFailed;
  }
}

ordered_json point_json(const SweepPoint& point) {
  ordered_json line = {{"kind", "point"}, {"id", point.id}, {"number", point.number}, {"sweep", point.sweep}};
  if (!point.label.empty()) line["label"] = point.label;
  line["flags"] = point.flags;
  if (point.published_tokens_per_sec) line["published_tokens_per_sec"] = *point.published_tokens_per_sec;
  return line;
}

void set_status(ordered_json& line, const Status& status) {
  line["status"] = status_name(status_of(status.code()));
  if (status.ok()) return;
  line["code"] = code_name(status.code());
  line["message"] = status.message();
}

void set_prediction(ordered_json& line, const policy::PlanCandidate& plan, const std::string& format) {
  const policy::Simulation& run = plan.simulation;
  ordered_json lanes = ordered_json::array();
  for (std::size_t i = 0; i < policy::kNumLanes; ++i) {
    if (run.lanes[i].steps == 0) continue;
    lanes.push_back({{"name", lane_name(static_cast<policy::LaneKind>(i))},
                     {"bytes", run.lanes[i].bytes},
                     {"busy_sec", run.lanes[i].busy_sec},
                     {"stalled_sec", run.lanes[i].stalled_sec}});
  }
  ordered_json memory;
  for (const Tier tier : kTiers) memory[std::string(tier_name(tier))] = plan.memory.total[tier];
  const Wall wall = wall_of(run);
  line["placement"] = run_placement_json(plan.placement);
  line["placement_flags"] = flags_of(plan.placement, plan.attention_threads);
  line["format"] = format;
  line["requests"] = plan.num_requests;
  line["predicted"] = {
      {"tokens_per_sec", run.tokens_per_sec()},
      {"total_sec", run.total_sec},
      {"prefill_sec", run.prefill_sec},
      {"decode_sec", run.decode_sec},
      {"first_token_sec", run.first_token_sec},
      {"latency_sec", latency_sec(run.total_sec, plan.num_requests, plan.placement.block_size())},
      {"passes", run.passes.size()},
      {"generated_tokens", run.generated_tokens},
      {"wall", lane_name(wall.lane)},
      {"bound_tokens_per_sec", wall.bound_tokens_per_sec},
      {"lanes", lanes},
      {"memory_bytes", memory}};
}

void set_measurement(ordered_json& line, const json& run, const json& summary) {
  try {
    const json& placement = run.at("placement");
    const double prefill = summary.at("prefill_sec").get<double>();
    const double decode = summary.at("decode_sec").get<double>();
    const auto generated = summary.at("generated_tokens").get<std::int64_t>();
    const auto requests = summary.at("requests").get<std::int64_t>();
    const std::int64_t block = placement.at("gpu_batch_size").get<std::int64_t>() *
                               placement.at("num_gpu_batches").get<std::int64_t>();
    const double total = prefill + decode;
    const double rate = total > 0 ? static_cast<double>(generated) / total : 0;
    ordered_json lanes = ordered_json::array();
    for (const json& lane : summary.at("lanes")) {
      if (lane.at("steps") == 0) continue;
      lanes.push_back({{"name", lane.at("name")},
                       {"bytes", lane.at("bytes")},
                       {"busy_sec", lane.at("busy_sec")},
                       {"stalled_sec", lane.at("stalled_sec")}});
    }
    ordered_json memory;
    for (const Tier tier : kTiers) {
      const std::string name(tier_name(tier));
      memory[name] = summary.at("memory").at(name).at("reserved_bytes");
    }
    line["placement"] = placement;
    line["requests"] = requests;
    line["device"] = run.at("device");
    line["measured"] = {{"tokens_per_sec", rate},
                        {"total_sec", total},
                        {"prefill_sec", prefill},
                        {"decode_sec", decode},
                        {"first_token_sec", summary.at("first_token_sec")},
                        {"latency_sec", latency_sec(total, requests, block)},
                        {"wall_sec", summary.at("wall_sec")},
                        {"load_sec", summary.at("load_sec")},
                        {"passes", summary.at("num_passes")},
                        {"generated_tokens", generated},
                        {"lanes", lanes},
                        {"memory_bytes", memory},
                        {"device_bytes", summary.at("device_bytes")},
                        {"peak_resident_bytes", summary.at("peak_resident_bytes")}};
    if (line.contains("predicted") && rate > 0) {
      const auto predicted = line["predicted"]["tokens_per_sec"].get<double>();
      line["error_percent"] = 100 * (predicted / rate - 1);
    }
  } catch (const json::exception& e) {
    throw Error(Code::kCorrupt, fmt::format("--stats-out of the run lacks a figure: {}", e.what()),
                "run it with the same version of sluice");
  }
}

void set_attempt(ordered_json& line, int attempt) { line["attempt"] = attempt; }

int attempt_of(const ordered_json& line) { return line.value("attempt", 0); }

void set_shares(ordered_json& line, const SweepPoint& point, const MachineShares& shares) {
  line["host_share"] = shares.host;
  line["disk_share"] = shares.disk;
  if (std::min(shares.host, shares.disk) < point.steady_share) line["disturbed"] = true;
}

std::string disturbance_of(const ordered_json& line) {
  if (!line.value("disturbed", false)) return "";
  const double host = line["host_share"].get<double>();
  const double disk = line["disk_share"].get<double>();
  return fmt::format("the {} at {:.0f} % of the profile's rate", disk < host ? "disk" : "host",
                     100 * std::min(host, disk));
}

bool shall_run_again(const ordered_json& line) {
  return line.value("disturbed", false) && attempt_of(line) < kMostAttempts;
}

}  // namespace sluice::apps
