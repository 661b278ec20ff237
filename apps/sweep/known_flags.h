// The flags that a sweep may state or vary: those of `sluice generate` and `sluice plan`, read from the
// commands' own lists of options. Immutable, thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::apps {

struct KnownFlag {
  enum class Kind : std::uint8_t { kSwitch, kValue };

  std::string name;                ///< in point ids and reports: "gpu-batch-size"
  std::vector<std::string> names;  ///< every spelling, without the dashes
  std::string generate, plan;      ///< the spelling that the command takes; empty: it has none
  Kind kind = Kind::kValue;
  int num_values = 1;  ///< words of a value: 6 for "percent"
};

/// In the order of `generate --help`, then what only `plan` has, then "block" (48x3: gpu-batch-size and
/// num-gpu-batches together). Flags that name files of a run or only print are left out.
const std::vector<KnownFlag>& known_flags();

/// By any spelling, underscores as dashes; null if there is none.
const KnownFlag* find_flag(std::string_view name);

/// "did you mean 'percent'", for a name that is not known.
std::string suggest_flag(std::string_view name);

/// The value that leaves a flag to the planner.
inline constexpr std::string_view kPlanned = "plan";
inline constexpr std::string_view kBlock = "block";

}  // namespace sluice::apps
