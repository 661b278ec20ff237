// A point measured: `sluice generate` with its flags, in a process of its own.
#pragma once

#include <filesystem>
#include <stop_token>

#include <nlohmann/json_fwd.hpp>

#include "apps/sweep/points.h"
#include "apps/sweep/prediction.h"

namespace sluice::apps {

/// Where the runs of a sweep put their statistics and messages; removed with it.
class RunFolder {
 public:
  /// Throws Error{kIo}.
  RunFolder();
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;
  std::filesystem::path stats() const { return path_ / "stats.jsonl"; }
  std::filesystem::path messages() const { return path_ / "messages"; }

 private:
  std::filesystem::path path_;
};

/// Predicts where the point names a profile, runs, and adds both to `line`. A planned point runs the plan.
/// Throws Error as the run ended: {kOutOfMemory, kInvalidArgument, ...} with the run's own message,
/// {kCancelled} if `stop` was asked for, {kInternal} for a crash or a timeout.
void run_point(const SweepPoint& point, const Predictor& predictor, const RunFolder& folder,
               const std::stop_token& stop, nlohmann::ordered_json& line);

}  // namespace sluice::apps
