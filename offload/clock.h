// The clock of runs: steady, in seconds.
#pragma once

#include <chrono>

namespace sluice::offload {

inline double clock_sec() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace sluice::offload
