// Predicts a run: plays the passes that the engine would compose and build against a hardware profile. Lanes
// take their steps in order, each after the steps it waits for; lanes that work at the same time share links
// and memory as the profile says. SIMULATION.md beside this file tells how. Pure; no state between calls.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/format.h"
#include "policy/check_schedule.h"
#include "policy/hardware.h"
#include "policy/pass.h"
#include "policy/play_queue.h"
#include "policy/rates.h"
#include "policy/run_shape.h"
#include "policy/step.h"
#include "policy/step_costs.h"

namespace sluice::policy {

struct SimulationOptions {
  std::span<const Encoding> formats;  ///< of the tensors in model_tensors order; empty: all dense
  int attention_threads = 0;          ///< 0: those of the profile's largest row
};

struct SimulatedLane {
  std::int64_t steps = 0, bytes = 0;
  double busy_sec = 0;
  double stalled_sec = 0;  ///< a step was there, but waited for other lanes
};

struct SimulatedPass {
  double sec = 0;  ///< from the results of the pass before to its own
  std::int64_t prompt_tokens = 0, generated = 0;
  bool has_prefill = false;
};

struct Simulation {
  double total_sec = 0;                    ///< until the last results are there
  double prefill_sec = 0, decode_sec = 0;  ///< passes with prefill rows, and without
  double first_token_sec = 0;
  double longest_request_sec = 0;  ///< of a request, from the begin of its first pass to its end
  std::int64_t prompt_tokens = 0, generated_tokens = 0;
  std::vector<SimulatedPass> passes;
  std::array<SimulatedLane, kNumLanes> lanes;

  /// Generated tokens over the whole time.
  double tokens_per_sec() const {
    return total_sec > 0 ? static_cast<double>(generated_tokens) / total_sec : 0;
  }
};

/// Called with each schedule once its steps are done, in order: the prologue with a null pass, then every
/// pass. The times are parallel to its steps; offload's TraceWriter takes them.
using OnSimulated = std::function<void(const Schedule&, const Pass*, const std::vector<StepTime>&)>;

/// The requests in the order of submission. Throws Error{kInvalidArgument} for a request that no seat holds.
Simulation simulate(const RunShape& shape, const HardwareProfile& hardware,
                    std::span<const RequestLength> requests, const SimulationOptions& options = {},
                    const OnSimulated& on_simulated = {});

/// The same with what many simulations of one model on one machine share.
Simulation simulate(const RunShape& shape, const Rates& rates, const ModelProducts& products,
                    std::span<const RequestLength> requests, const OnSimulated& on_simulated = {});

}  // namespace sluice::policy
