// A point measured: `sluice generate` with its flags, in a process of its own.
#pragma once

#include <filesystem>
#include <optional>
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

/// The prediction where the point names a profile, added to `line`; nothing, and the reason in `line`, if it
/// is stated and no prediction knows its flags. Throws Error as Predictor::predict, {kInvalidArgument} for a
/// point that no run can be made of.
std::optional<PointPlan> predict_point(const SweepPoint& point, const Predictor& predictor,
                                       nlohmann::ordered_json& line);

/// Whether the placement leaves weights, KV or activations to the disk. `plan` is predict_point's; without it
/// the point states its percents, else Error{kInvalidArgument}.
bool reads_disk(const SweepPoint& point, const std::optional<PointPlan>& plan);

/// Runs, and adds what was measured to `line`. A planned point runs `plan`. Throws Error as the run ended:
/// {kOutOfMemory, kInvalidArgument, ...} with the run's own message, {kCancelled} if `stop` was asked for,
/// {kInternal} for a crash or a timeout.
void run_point(const SweepPoint& point, const std::optional<PointPlan>& plan, const RunFolder& folder,
               const std::stop_token& stop, nlohmann::ordered_json& line);

}  // namespace sluice::apps
