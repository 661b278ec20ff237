#include "apps/sweep/run_sweep.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "apps/interrupt.h"
#include "apps/sweep/machine_probe.h"
#include "apps/sweep/point_line.h"
#include "apps/sweep/prediction.h"
#include "apps/sweep/run_point.h"
#include "apps/version.h"
#include "core/build_config.h"
#include "core/error.h"
#include "core/log.h"
#include "core/store/checksum.h"

namespace sluice::apps {
namespace {

using nlohmann::ordered_json;
using Mode = SweepOptions::Mode;

std::vector<SweepFile> load_files(const std::vector<std::string>& names) {
  std::vector<SweepFile> files;
  files.reserve(names.size());
  for (const std::string& name : names) files.push_back(load_sweep(name));
  return files;
}

SweepHeader header_of(const SweepOptions& options, const std::vector<SweepFile>& files,
                      const std::vector<SweepPoint>& points, const Predictor& predictor) {
  std::string title;
  std::string description;
  for (const SweepFile& file : files) {
    title += (title.empty() ? "" : "; ") + file.title;
    description += (description.empty() || file.description.empty() ? "" : " ") + file.description;
  }
  ordered_json hardware = ordered_json::object();
  for (const auto& [name, profile] : predictor.profiles()) {
    const std::string yaml = to_yaml(profile);
    hardware[name] = {{"machine", profile.machine.name},
                      {"source", profile.machine.source},
                      {"hash", fmt::format("{:016x}", store_checksum(std::as_bytes(std::span(yaml))))}};
  }
  return {{"kind", "sweep"},
          {"title", title},
          {"description", description},
          {"mode", options.mode == Mode::kSimulate ? "simulate" : "run"},
          {"hardware", hardware},
          {"points", points.size()},
          {"points_hash", points_hash(points)},
          {"version", kVersion},
          {"commit", kCommit}};
}

/// A run has one machine.
void check_one_machine(const std::vector<SweepPoint>& points) {
  std::set<std::string> names;
  for (const SweepPoint& point : points) names.insert(point.value("hardware"));
  names.erase("");
  if (names.size() <= 1) return;
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  throw Error(Code::kInvalidArgument,
              fmt::format("a sweep that runs has one machine, and these are {}", list),
              "predict it with --simulate, or give the machine's own profile: --hardware FILE");
}

constexpr std::int64_t kSimulatedPerLine = 20;

class Sweep {
 public:
  Sweep(const SweepOptions& options, const std::vector<SweepPoint>& points, const Predictor& predictor,
        PointFile& file)
      : options_(options), predictor_(predictor), file_(file) {
    for (const SweepPoint& point : points) {
      if (!file.is_done(point.id)) todo_.push_back(&point);
    }
    num_done_ = file.num_done();
    num_points_ = std::ssize(points);
  }

  void run(const std::stop_token& stop) {
    stop_ = stop;
    if (options_.mode == Mode::kSimulate) {
      simulate_all(stop);
      return;
    }
    const RunFolder folder;
    while (!todo_.empty()) {
      again_.clear();
      for (const SweepPoint* point : todo_) {
        if (stop.stop_requested()) return;
        one(*point, [&](ordered_json& line) { run_beside_probes(*point, folder, line); });
      }
      todo_ = again_;
    }
  }

 private:
  void run_beside_probes(const SweepPoint& point, const RunFolder& folder, ordered_json& line) {
    const std::optional<PointPlan> plan = predict_point(point, predictor_, line);
    if (point.steady_share == 0 || point.value("hardware").empty()) {
      run_point(point, plan, folder, stop_, line);
      return;
    }
    if (!probe_) probe_.emplace(predictor_.profiles().at(point.value("hardware")));
    std::optional<std::string> disk_dir;
    if (reads_disk(point, plan)) disk_dir = point.value("disk-dir");
    const int attempt = 1 + std::max(attempts_[point.id], file_.attempts(point.id));
    attempts_[point.id] = attempt;
    set_attempt(line, attempt);
    const std::optional<MachineShares> before = shares_now(point, disk_dir);
    run_point(point, plan, folder, stop_, line);
    const std::optional<MachineShares> after = shares_now(point, disk_dir);
    if (before && after) set_shares(line, point, lowest_of(*before, *after));
  }

  /// Nothing if they cannot be timed: that is no failure of the point.
  std::optional<MachineShares> shares_now(const SweepPoint& point,
                                          const std::optional<std::string>& disk_dir) {
    try {
      return probe_->shares(disk_dir);
    } catch (const Error& e) {
      log_warn("{}: not timed whether the machine is as fast as profiled: {}", point.what, e.what());
      return std::nullopt;
    }
  }

  void simulate_all(const std::stop_token& stop) {
    const unsigned processors = std::max(1U, std::thread::hardware_concurrency());
    const auto wanted = options_.jobs > 0 ? static_cast<std::size_t>(options_.jobs) : processors;
    std::atomic<std::size_t> next = 0;
    std::vector<std::exception_ptr> failures(std::min(wanted, std::max<std::size_t>(1, todo_.size())));
    {
      const auto predict_points = [&](std::exception_ptr& failure) {
        try {
          for (std::size_t i = next++; i < todo_.size() && !stop.stop_requested(); i = next++) {
            one(*todo_[i], [&](ordered_json& line) {
              const PointPlan plan = predictor_.predict(*todo_[i]);
              set_prediction(line, plan.candidate, plan.format);
            });
          }
        } catch (...) {  // the output cannot be written: nothing more is started
          failure = std::current_exception();
          next = todo_.size();
        }
      };
      std::vector<std::jthread> threads;
      kernels::ThreadStarter starter("the sweep", static_cast<int>(failures.size()), options_.make_thread);
      try {
        for (std::exception_ptr& failure : failures)
          threads.push_back(starter.start([&predict_points, &failure] { predict_points(failure); }));
      } catch (...) {
        next = todo_.size();
        throw;
      }
    }
    for (const std::exception_ptr& failure : failures) {
      if (failure) std::rethrow_exception(failure);
    }
  }

  /// One point: its line is written whether it works out or not, but not when the sweep is stopped in it.
  template <class Work>
  void one(const SweepPoint& point, const Work& work) {
    ordered_json line = point_json(point);
    Status status;
    try {
      work(line);
    } catch (...) {
      status = Status::from_current_exception();
      if (status.code() == Code::kCancelled && stop_.stop_requested()) return;  // else another's signal
    }
    set_status(line, status);
    file_.append(line);
    if (status.ok() && shall_run_again(line)) {
      log_info("{}: {}: again at the end", point.what, disturbance_of(line));
      again_.push_back(&point);
      return;
    }
    say(point, line, status);
  }

  void say(const SweepPoint& point, const ordered_json& line, const Status& status) {
    const std::int64_t done = ++num_done_;
    if (!status.ok()) {
      log_info("{} of {}: {}: {}: {}", done, num_points_, point.what, line["status"].get<std::string>(),
               status.message());
    } else if (line.contains("measured")) {
      const std::string disturbance = disturbance_of(line);
      log_info("{} of {}: {}: {:.2f} tokens/s{}{}{}", done, num_points_, point.what,
               line["measured"]["tokens_per_sec"].get<double>(),
               line.contains("predicted")
                   ? fmt::format(", predicted {:.2f}", line["predicted"]["tokens_per_sec"].get<double>())
                   : "",
               disturbance.empty() ? "" : ", still ", disturbance);
    } else if (done % kSimulatedPerLine == 0) {
      log_info("{} of {} points predicted", done, num_points_);
    }
  }

  const SweepOptions& options_;
  const Predictor& predictor_;
  PointFile& file_;
  std::vector<const SweepPoint*> todo_;
  std::vector<const SweepPoint*> again_;  // whose runs were disturbed
  std::map<std::string, int> attempts_;   // by id, of this run
  std::optional<MachineProbe> probe_;     // of the one machine, once a point needs it
  std::stop_token stop_;
  std::atomic<std::int64_t> num_done_ = 0;
  std::int64_t num_points_ = 0;
};

SweepSummary summary_of(const PointFile& file, std::int64_t num_points) {
  SweepSummary summary;
  summary.results = file.results();
  summary.num_points = num_points;
  std::string refused;
  for (const ordered_json& line : summary.results.lines) {
    if (!shall_run_again(line)) ++summary.num_ended;
    const auto status = line.at("status").get<std::string>();
    if (status == status_name(PointStatus::kOk)) {
      ++summary.num_ok;
    } else if (status == status_name(PointStatus::kRefused)) {
      ++summary.num_refused;
      if (refused.empty()) refused = line.value("message", "");
    } else {
      ++summary.num_failed;
      if (summary.first_problem.empty()) summary.first_problem = line.value("message", "");
    }
  }
  if (summary.first_problem.empty()) summary.first_problem = refused;
  return summary;
}

}  // namespace

void run_sweep(const SweepOptions& options, const std::function<void(const SweepSummary&)>& on_end) {
  const std::vector<SweepFile> files = load_files(options.files);
  const std::vector<SweepPoint> points = points_of(files, options.points);
  if (options.mode == Mode::kRun) check_one_machine(points);
  const Predictor predictor(points, options.step_budget);
  PointFile file(options.output, header_of(options, files, points, predictor), points);
  if (file.num_done() > 0) log_info("{} of {} points are done", file.num_done(), points.size());
  const InterruptScope interrupt;
  file.open();
  Sweep(options, points, predictor, file).run(interrupt.token());
  file.finish();
  const SweepSummary summary = summary_of(file, std::ssize(points));
  on_end(summary);
  if (!interrupt.token().stop_requested()) return;
  throw Error(Code::kCancelled,
              fmt::format("stopped after {} of {} points", summary.num_ended, points.size()),
              "run the same command with --resume to go on, if --output is a file");
}

}  // namespace sluice::apps
