#include "apps/sweep/run_point.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "apps/plan/explain.h"
#include "apps/sweep/child_process.h"
#include "apps/sweep/known_flags.h"
#include "apps/sweep/point_line.h"
#include "apps/sweep/run_failure.h"
#include "core/errno_text.h"
#include "core/error.h"
#include "core/log.h"
#include "core/store/posix_file.h"
#include "core/units.h"
#include "policy/placement.h"

namespace sluice::apps {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::int64_t kMostStatsBytes = 16_MiB;

// What a plan states itself.
constexpr std::array<std::string_view, 10> kPlacementFlags = {
    "percent",        "gpu-batch-size", "num-gpu-batches", "cpu-cache-compute", "no-cpu-cache-compute",
    "prefetch-depth", "no-mixing",      "no-prefetch",     "kv-format",         "max-tokens-per-gpu-batch"};

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

/// The command line of the run; with `plan`, its placement in place of what the point says of it.
std::vector<std::string> command_of(const SweepPoint& point, const PointPlan* plan) {
  if (plan == nullptr) return arguments_of(point, FlagReader::kGenerate);
  SweepPoint rest = point;
  for (const std::string_view name : kPlacementFlags) rest.flags.erase(std::string(name));
  if (plan->candidate.attention_threads > 0) rest.flags.erase("threads");
  if (!point.value("allow-formats").empty()) rest.flags["format"] = plan->format;
  if (!point.value("prompt-len").empty())
    rest.flags["num-requests"] = std::to_string(plan->candidate.num_requests);
  std::vector<std::string> words = arguments_of(rest, FlagReader::kGenerate);
  for (std::string& word : words_of(flags_of(plan->candidate.placement, plan->candidate.attention_threads)))
    words.push_back(std::move(word));
  return words;
}

/// The last line "error: ..." that the run wrote, without its head; "" if there is none, or no file.
std::string message_of(const std::filesystem::path& messages) {
  constexpr std::string_view kHead = "error: ";
  std::ifstream in(messages);
  std::string found;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(kHead)) found = line.substr(kHead.size());
  }
  return found;
}

/// The lines "run" and "summary" of the statistics.
std::pair<json, json> read_stats(const std::filesystem::path& path) {
  std::istringstream in(sluice::detail::read_text_file(path, kMostStatsBytes));
  json run;
  json summary;
  for (std::string line; std::getline(in, line);) {
    json parsed = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (parsed.is_discarded() || !parsed.is_object()) continue;
    const std::string kind = parsed.value("kind", "");
    if (kind == "run")
      run = std::move(parsed);
    else if (kind == "summary")
      summary = std::move(parsed);
  }
  return {std::move(run), std::move(summary)};
}

}  // namespace

RunFolder::RunFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "sluice_sweep_XXXXXX").string();
  SLUICE_CHECK(mkdtemp(name.data()) != nullptr, Code::kIo, fmt::format("{}: {}", name, errno_text(errno)),
               "set TMPDIR to a folder that you may write");
  path_ = name;
}

RunFolder::~RunFolder() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
  if (error) log_warn("{}: could not be removed: {}", path_.string(), error.message());
}

std::optional<PointPlan> predict_point(const SweepPoint& point, const Predictor& predictor,
                                       ordered_json& line) {
  SLUICE_CHECK(point.problem.empty(), Code::kInvalidArgument, point.problem, "");
  const bool states_plan = std::any_of(point.flags.begin(), point.flags.end(), [](const auto& flag) {
    return flag.second == kPlanned && flag.first != "percent";
  });
  const bool has_profile = !point.value("hardware").empty();
  for (const char* name : {"allow-formats", "max-latency"}) {
    SLUICE_CHECK((has_profile && point.is_planned()) || point.value(name).empty(), Code::kInvalidArgument,
                 fmt::format("{} is for points that the planner completes, and this one is stated", name),
                 "leave percent out, or give hardware");
  }
  if (has_profile) {
    try {
      PointPlan plan = predictor.predict(point);
      set_prediction(line, plan.candidate, plan.format);
      return plan;
    } catch (const Error& e) {
      if (e.code() != Code::kUnsupported || point.is_planned()) throw;
      line["not_predicted"] = e.what();
    }
  } else {
    SLUICE_CHECK(!states_plan, Code::kInvalidArgument, "the planner needs a hardware profile",
                 "state hardware: [NAME], or give --hardware NAME");
  }
  return std::nullopt;
}

bool reads_disk(const SweepPoint& point, const std::optional<PointPlan>& plan) {
  std::istringstream stated(point.value("percent"));
  const policy::Percents percents =
      plan ? plan->candidate.placement.percents
           : policy::parse_percents({std::istream_iterator<int>(stated), std::istream_iterator<int>()});
  return percents.weights[Tier::kDisk] + percents.kv_cache[Tier::kDisk] + percents.activations[Tier::kDisk] >
         0;
}

void run_point(const SweepPoint& point, const std::optional<PointPlan>& plan, const RunFolder& folder,
               const std::stop_token& stop, ordered_json& line) {
  std::vector<std::string> words = {"generate"};
  const bool runs_plan = plan && point.is_planned();
  for (std::string& word : command_of(point, runs_plan ? &*plan : nullptr)) words.push_back(std::move(word));
  words.push_back("--stats-out=" + folder.stats().string());
  // Of the point before.
  std::filesystem::remove(folder.stats());
  std::filesystem::remove(folder.messages());
  const ChildOptions options{.stderr_file = folder.messages(), .timeout_sec = point.timeout_sec};
  const ChildOutcome outcome = run_child(this_program(), words, options, stop);
  line["took_sec"] = outcome.sec;
  if (outcome.end == ChildOutcome::End::kStopped && outcome.was_killed)
    log_warn("the run did not end within {:g} s of SIGINT and was killed", options.grace_sec);
  throw_if_failed(outcome, options, message_of(folder.messages()));
  const auto [run, summary] = read_stats(folder.stats());
  set_measurement(line, run, summary);
}

}  // namespace sluice::apps
