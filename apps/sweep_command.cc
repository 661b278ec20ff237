// `sluice sweep`: many placements, models or machines, predicted or run, and a page with charts of them.
#include <filesystem>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "apps/commands.h"
#include "apps/sweep/report.h"
#include "apps/sweep/run_sweep.h"
#include "core/error.h"
#include "core/log.h"

namespace sluice::apps {
namespace {

struct SweepFlags {
  SweepOptions sweep;
  std::vector<std::string> settings;
  std::string report, report_only;
};

void report_only(const SweepFlags& options) {
  SLUICE_CHECK(options.sweep.files.empty(), Code::kInvalidArgument,
               "--report-only draws results that are there, and sweep files are given",
               "leave one of them out");
  const SweepResults results = read_sweep_results(options.report_only);
  SLUICE_CHECK(!results.header.is_null(), Code::kCorrupt, fmt::format("{}: is empty", options.report_only),
               "give the --output of sluice sweep");
  const std::string path =
      options.report.empty() ? std::filesystem::path(options.report_only).replace_extension(".html").string()
                             : options.report;
  write_report(path, results);
  log_info("{} points drawn: {}", results.lines.size(), path);
}

void run(SweepFlags options) {
  if (!options.report_only.empty()) {
    report_only(options);
    return;
  }
  SLUICE_CHECK(!options.sweep.files.empty(), Code::kInvalidArgument, "no sweep",
               "give a YAML file, or the name of a sweep that ships: " +
                   fmt::format("{}", fmt::join(builtin_sweep_names(), ", ")));
  for (const std::string& setting : options.settings)
    options.sweep.points.settings.push_back(parse_setting(setting));
  SweepSummary at_end;
  run_sweep(options.sweep, [&](const SweepSummary& summary) {
    at_end = summary;
    if (!options.report.empty()) write_report(options.report, summary.results);
    log_info("{} points: {} ok, {} refused, {} failed{}", summary.num_points, summary.num_ok,
             summary.num_refused, summary.num_failed,
             options.report.empty() ? "" : "; report: " + options.report);
  });
  SLUICE_CHECK(at_end.num_failed == 0, Code::kInternal,
               fmt::format("{} of {} points failed, the first: {}", at_end.num_failed, at_end.num_points,
                           at_end.first_problem),
               "their lines have the messages; --resume tries them again");
  SLUICE_CHECK(
      at_end.num_ok > 0, Code::kInvalidArgument,
      fmt::format("all {} points were refused, the first: {}", at_end.num_points, at_end.first_problem),
      "mend the sweep");
}

}  // namespace

void add_sweep_command(CLI::App& app) {
  auto options = std::make_shared<SweepFlags>();
  SweepOptions& sweep = options->sweep;
  CLI::App* command = app.add_subcommand("sweep", "Predict or run many placements, and draw them");
  command->add_option("files", sweep.files, "YAML files, or names of sweeps that ship");
  command->add_flag_callback(
      "--simulate", [&sweep] { sweep.mode = SweepOptions::Mode::kSimulate; },
      "Predict every point; without it each is run by `sluice generate` in a process of its own");
  command->add_option("--output", sweep.output.path,
                      "A line of JSON for each point; default: standard output");
  command->add_flag("--resume", sweep.output.resume,
                    "Go on with an interrupted --output; points that failed are tried again");
  command->add_option("--report", options->report, "An HTML page with charts, complete in itself");
  command->add_option("--report-only", options->report_only,
                      "Draw the page of an --output that is there; default: beside it, as .html");
  command->add_option("--hardware", sweep.points.hardware, "Profiles in place of those that the files name")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_option("--set", options->settings, "flag=value for every point, for example disk-dir=/data")
      ->allow_extra_args(false);
  command->add_option("--sample", sweep.points.sample, "Draw so many of the combinations of axes; 0: all")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--seed", sweep.points.seed, "Of the draw");
  command->add_option("--jobs", sweep.jobs, "Threads of --simulate; default: one for each processor")
      ->check(CLI::Range(1, 1024));
  command
      ->add_option("--step-budget", sweep.step_budget, "Steps that the search for one point's plan simulates")
      ->check(CLI::Range(std::int64_t{10'000}, std::int64_t{1'000'000'000}))
      ->capture_default_str();
  command->footer(R"(Examples
  sluice sweep opt-flexgen-t4 --simulate --output points.jsonl --report report.html
  sluice sweep mine.yaml --hardware machine.yaml --output runs.jsonl --report runs.html
  sluice sweep --report-only runs.jsonl
A file has flags (of every point), axes (all combinations) and points: configs/sweeps/README.md.
The exit status is 0 only if no point failed; one that does not fit is refused, which is a result.)");
  command->callback([options] { run(*options); });
}

}  // namespace sluice::apps
