// What a hardware profile says of a run that is over: the least time that its work could have taken, and the
// run as the simulation plays it. Pure.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "apps/profile/find_profile.h"
#include "core/format.h"
#include "policy/run_shape.h"
#include "policy/simulate.h"
#include "policy/step.h"
#include "policy/work_floor.h"

namespace sluice::apps {

struct Forecast {
  std::string origin;  ///< of the profile
  policy::WorkFloor floor;
  policy::Simulation predicted;
  std::array<double, policy::kNumLanes> peak_bytes_per_sec{};  ///< of each lane alone; 0: not known
};

/// `work` are the requests as they ran, `shape` is the run's; `attention_threads` is 0 for those of the
/// profile.
Forecast forecast(const KnownProfile& profile, const policy::RunShape& shape,
                  std::span<const Encoding> formats, std::span<const policy::SequenceWork> work,
                  int attention_threads);

/// What of the floor takes longest, in words.
std::string_view wall_of(const policy::WorkFloor& floor);

}  // namespace sluice::apps
