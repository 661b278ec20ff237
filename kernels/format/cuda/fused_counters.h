// Counters in device memory that are zero whenever no product runs: a product that needs such to agree on who
// is last, and leaves them as it found them, is spared the launch that would clear its own. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice::kernels {

/// At least `counters` of the current device, always the same for the same workspace, and no other's:
/// products that may run at the same time have different workspaces. nullptr if there are too many, of
/// either.
unsigned* lease_counters(const std::byte* workspace, std::int64_t counters);

}  // namespace sluice::kernels
