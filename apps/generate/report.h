// What a run achieved, for people (stderr) and for programs (--stats-out). Pure functions, thread-safe.
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "apps/generate/run.h"
#include "offload/engine.h"
#include "policy/placement.h"

namespace sluice::apps {

/// Several lines: tokens, times and rates of prefill and decode, each lane's bytes, rate, busy and stalled
/// time, planned and reserved memory of each tier, peak resident size.
std::string run_report(const offload::RunStats& stats, const RunCounts& counts,
                       const policy::Placement& placement);

/// FlexGen's figures for the synthetic benchmark; no projections. Throughputs in tokens/s: prefill counts
/// prompt tokens, decode the tokens of decode passes, total the generated tokens over prefill and decode
/// time.
std::string benchmark_report(const offload::RunStats& stats, const policy::Workload& workload);

/// The same numbers as one JSON object, {"kind": "summary", ...}.
nlohmann::ordered_json summary_json(const offload::RunStats& stats, const RunCounts& counts);

}  // namespace sluice::apps
