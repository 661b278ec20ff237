// Whether the host is as fast as it was when it was profiled. Other tenants of a machine take memory
// bandwidth for minutes at a time: what runs meanwhile runs on another machine than the profile's. One
// thread.
#pragma once

#include <cstdint>

#include "policy/hardware.h"

namespace sluice::apps {

class HostProbe {
 public:
  /// Counts with the profile's rate of attention over fp16 KV, that of its largest number of threads.
  explicit HostProbe(const policy::HardwareProfile& profile);

  /// The rate of attention over K and V in host memory, with as many threads, over the profile's: about half
  /// a second, of which most is for memory, which is given back. Throws Error{kOutOfMemory}.
  double share() const;

 private:
  std::int64_t bytes_;
  int threads_ = 1;
  double gb_per_sec_ = 0;
};

}  // namespace sluice::apps
