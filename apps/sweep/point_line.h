// A point's result as one JSON object a line; configs/sweeps/README.md lists the fields. Pure.
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include "apps/sweep/machine_probe.h"
#include "apps/sweep/points.h"
#include "core/error.h"
#include "policy/planner.h"

namespace sluice::apps {

enum class PointStatus : std::uint8_t {
  kOk,
  kRefused,  ///< said no before it began: it does not fit, or its flags contradict each other
  kFailed,
};
std::string_view status_name(PointStatus status);
PointStatus status_of(Code code);

/// {"kind": "point", "id", "number", "sweep", "label"?, "flags", "published_tokens_per_sec"?}
nlohmann::ordered_json point_json(const SweepPoint& point);
/// Adds "status", and the message and code of a failure.
void set_status(nlohmann::ordered_json& line, const Status& status);
/// Adds "placement", "placement_flags", "format", "requests", "predicted".
void set_prediction(nlohmann::ordered_json& line, const policy::PlanCandidate& plan,
                    const std::string& format);
/// Adds "measured", and "error_percent" of the prediction where there is one. `run` and `summary` are the
/// lines of --stats-out. Throws Error{kCorrupt} if they lack a figure.
void set_measurement(nlohmann::ordered_json& line, const nlohmann::json& run, const nlohmann::json& summary);

/// Runs of a point whose machine is not steady: SweepFile::steady_share.
inline constexpr int kMostAttempts = 3;
/// Adds "attempt", from 1 on.
void set_attempt(nlohmann::ordered_json& line, int attempt);
/// 0 if the line has none.
int attempt_of(const nlohmann::ordered_json& line);
/// Adds "host_share" and "disk_share", those before or after the run, whichever are lower; "disturbed" if one
/// is below the point's share, so that the point is run again.
void set_shares(nlohmann::ordered_json& line, const SweepPoint& point, const MachineShares& shares);
/// "the disk at 85 % of the profile's rate" of a disturbed point; "" of another one.
std::string disturbance_of(const nlohmann::ordered_json& line);
/// True if the point was disturbed and has attempts left.
bool shall_run_again(const nlohmann::ordered_json& line);

}  // namespace sluice::apps
