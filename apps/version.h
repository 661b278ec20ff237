// What this binary is and what it found on this machine. Thread-safe.
#pragma once

#include <string>

namespace sluice::apps {

/// "cpu: 16 threads": the devices that a run may use, one per entry, joined by "; ".
std::string devices_text();
/// Several lines: version, commit, build type, compiler, devices, io_uring.
std::string version_text();

}  // namespace sluice::apps
