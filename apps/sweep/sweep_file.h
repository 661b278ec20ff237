// A sweep as people write it: YAML with fixed flags, axes whose product is taken, and points of their own.
// configs/sweeps/README.md tells the fields. Plain data.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/config/read_fields.h"

namespace sluice::apps {

/// A flag (KnownFlag::name) with one value, or with the values of an axis, as texts: "20 80 0 100 0 100".
struct FlagSetting {
  std::string name;
  std::vector<std::string> values;
  int line = 0;
};

/// `flags:`, each with one value.
struct FixedFlags {
  std::vector<FlagSetting> settings;
};
/// `axes:`, each with at least one value.
struct SweepAxes {
  std::vector<FlagSetting> settings;
};
/// An entry of `points:`: flags, and what is said about it.
struct StatedPoint {
  std::string label;
  std::optional<double> published_tokens_per_sec;  ///< of another system, to compare with
  FixedFlags flags;
  int line = 0;
};

struct SweepFile {
  std::string name;    ///< of the file, without folder and extension; no field of it
  std::string source;  ///< for messages
  std::string title, description;
  std::vector<std::string> hardware;
  FixedFlags flags;
  SweepAxes axes;
  std::vector<StatedPoint> points;
  std::int64_t sample = 0;
  std::uint64_t seed = 0;
  double timeout_sec = 0;
  double steady_share = 0;
};

template <class Visitor>
void visit_fields(Visitor& visit, SweepFile& sweep) {
  visit("title", sweep.title, "what the report is called");
  visit("description", sweep.description, "a sentence or two below it");
  visit("hardware", sweep.hardware, "profiles that predictions are made with; every point on each of them");
  visit("flags", sweep.flags, "of every point, as sluice generate and sluice plan spell them");
  visit("axes", sweep.axes, "flags with lists of values: all combinations");
  visit("points", sweep.points, "points stated one by one, beside the combinations");
  visit("sample", sweep.sample, "how many of the combinations are drawn; 0: all", at_least(0));
  visit("seed", sweep.seed, "of the draw");
  visit("timeout_sec", sweep.timeout_sec, "most seconds that the run of a point may take; 0: no limit",
        at_least(0));
  visit("steady_share", sweep.steady_share,
        "a point beside whose run the CPUs attended, or the disk that it reads was read, at less than this "
        "share of the profile's rate is run again; 0: no point is",
        between(0, 1));
}

/// Throws Error{kInvalidArgument} with every problem, a line each.
SweepFile parse_sweep(std::string_view yaml, const std::string& source, const std::string& name);

/// A file, or the name of a sweep that ships ("gpu-memory"). Throws Error{kNotFound, kIo} too.
SweepFile load_sweep(const std::string& path_or_name);
std::vector<std::string> builtin_sweep_names();

/// "name=value" from the command line, in place of what the files state. Throws Error{kInvalidArgument}.
FlagSetting parse_setting(const std::string& assignment);

}  // namespace sluice::apps

namespace sluice {

template <>
void read_value<apps::FixedFlags>(const ConfigSite& site, apps::FixedFlags& flags, const Bounds& bounds);
template <>
void read_value<apps::SweepAxes>(const ConfigSite& site, apps::SweepAxes& axes, const Bounds& bounds);
template <>
void read_value<apps::StatedPoint>(const ConfigSite& site, apps::StatedPoint& point, const Bounds& bounds);

}  // namespace sluice
