// How many bytes each lane must have moved in a run: the tests' own count, from where the seats' pages and
// the tensors live and from the rows of each pass. It shares no code with policy/kv_traffic and with the
// schedule.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "tests/e2e/e2e.h"

namespace sluice::testing {

/// `stored_bytes` of each tensor in model_tensors order; empty if all are dense.
std::array<std::int64_t, policy::kNumLanes> expected_lane_bytes(
    const RunOutcome& outcome, std::span<const std::int64_t> stored_bytes = {});

/// The same as the executor counted them.
std::array<std::int64_t, policy::kNumLanes> counted_lane_bytes(const RunOutcome& outcome);

}  // namespace sluice::testing
