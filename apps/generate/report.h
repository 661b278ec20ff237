// What a run achieved, for people (stderr) and for programs (--stats-out). Pure functions, thread-safe.
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "apps/generate/forecast.h"
#include "apps/generate/run.h"
#include "offload/engine.h"
#include "policy/placement.h"

namespace sluice::apps {

/// Several lines: tokens, times and rates of prefill and decode, each lane's bytes, rate, busy and stalled
/// time, planned and reserved memory of each tier, peak resident size. With a forecast, also the bound and
/// the share of it that was reached, each lane's rate as a share of its peak, and predicted against measured;
/// without, how to get them. apps/README.md tells what each line means.
std::string run_report(const offload::RunStats& stats, const RunCounts& counts,
                       const policy::Placement& placement, const Forecast* forecast = nullptr);

/// FlexGen's figures for the synthetic benchmark; no projections. Throughputs in tokens/s: prefill counts
/// prompt tokens, decode the tokens of decode passes, total the generated tokens over prefill and decode
/// time.
std::string benchmark_report(const offload::RunStats& stats, const policy::Workload& workload);

/// The same numbers as one JSON object, {"kind": "summary", ...}.
nlohmann::ordered_json summary_json(const offload::RunStats& stats, const RunCounts& counts,
                                    const Forecast* forecast = nullptr);

}  // namespace sluice::apps
