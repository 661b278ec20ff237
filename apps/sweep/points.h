// The points of a sweep: which flags each has. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "apps/sweep/sweep_file.h"

namespace sluice::apps {

struct SweepPoint {
  std::string id;                            ///< a hash of the flags, 16 hexadecimal digits
  std::int64_t number = 0;                   ///< from 0, in the order of the files
  std::string sweep, label;                  ///< the file's name; of a stated point
  std::string what;                          ///< for messages: the label, or the values on the axes
  std::map<std::string, std::string> flags;  ///< by KnownFlag::name; "block" is taken apart
  std::optional<double> published_tokens_per_sec;
  double timeout_sec = 0;    ///< 0: no limit
  double steady_share = 0;   ///< of the profile's rates, below which a run is repeated
  std::string problem = {};  ///< flags that contradict each other; empty: none

  /// The value, or "" where the flag is not stated or left to the planner.
  std::string value(const std::string& name) const;
  /// True if the planner chooses: no percents, or a flag whose value is `plan`.
  bool is_planned() const;
};

/// The command that reads the flags.
enum class FlagReader : std::uint8_t { kGenerate, kPlan };

/// The words of the point's command line, those flags that the command does not have left out.
std::vector<std::string> arguments_of(const SweepPoint& point, FlagReader reader);

struct PointOptions {
  std::vector<FlagSetting> settings;   ///< in place of what files state, for every point
  std::vector<std::string> hardware;   ///< in place of the files' lists, where not empty
  std::optional<std::int64_t> sample;  ///< in place of the files'
  std::optional<std::uint64_t> seed;
};

/// All points, each once. Throws Error{kInvalidArgument} for more than kMostPoints.
std::vector<SweepPoint> points_of(std::span<const SweepFile> sweeps, const PointOptions& options = {});
inline constexpr std::int64_t kMostPoints = 100'000;

/// `count` different numbers below `total`, ascending, drawn by `seed`: the same everywhere.
std::vector<std::int64_t> draw(std::int64_t total, std::int64_t count, std::uint64_t seed);

}  // namespace sluice::apps
