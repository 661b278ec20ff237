// From sweep files to results: every point predicted or run, each result written as it is there.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "apps/sweep/point_file.h"
#include "apps/sweep/points.h"
#include "kernels/device/cpu/thread_starter.h"

namespace sluice::apps {

struct SweepOptions {
  enum class Mode : std::uint8_t { kRun, kSimulate };

  std::vector<std::string> files;  ///< or names of sweeps that ship
  Mode mode = Mode::kRun;
  PointOptions points;
  PointFileOptions output;
  int jobs = 0;                          ///< threads of a simulated sweep; 0: one for each processor
  std::int64_t step_budget = 2'000'000;  ///< of the search of a planned point
  kernels::ThreadMaker make_thread;      ///< empty: the system's
};

struct SweepSummary {
  SweepResults results;
  std::int64_t num_points = 0, num_ok = 0, num_refused = 0, num_failed = 0;
  std::int64_t num_ended = 0;  ///< have a result and are not to be run again
  std::string first_problem;   ///< of a failed point, else of a refused one
};

/// Throws Error{kCancelled} after Ctrl-C, with `on_end` called before it throws, as at the end, and
/// {kOutOfMemory} if a thread does not start: what was predicted until then is in the output.
void run_sweep(const SweepOptions& options, const std::function<void(const SweepSummary&)>& on_end);

}  // namespace sluice::apps
