// What beginning and ending a step costs, told from its work by doing the same work in fewer, larger steps.
// Pure.
#pragma once

#include <cstdint>

namespace sluice::apps {

/// Of the same work in `many` steps and in `few` (fewer) ones: what each step takes beside the work. Negative
/// where noise is larger.
inline double step_overhead_sec(double sec_in_many, std::int64_t many, double sec_in_few, std::int64_t few) {
  return (sec_in_many - sec_in_few) / static_cast<double>(many - few);
}

/// The rate of `work` without the overhead of its `steps`, which is less than the time that `rate` says.
inline double rate_without(double overhead_sec, std::int64_t steps, double work, double rate) {
  return work / (work / rate - static_cast<double>(steps) * overhead_sec);
}

}  // namespace sluice::apps
