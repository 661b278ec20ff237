// From options to a plan that fits: fills in what the caller left open, derives the run's shape, and shrinks
// its workspace to the GPU budget.
#pragma once

#include "kernels/device/device.h"
#include "offload/engine.h"
#include "offload/weights/weight_source.h"
#include "policy/memory_plan.h"
#include "policy/run_shape.h"

namespace sluice::offload {

struct PlannedRun {
  policy::RunShape shape;
  policy::MemoryPlan memory;
  PerTier<std::int64_t> budget_bytes{};
};

/// Throws Error{kInvalidArgument} for contradictions and Error{kOutOfMemory} if the plan exceeds 90 % of what
/// the machine, or the device's own memory, has free (on the CPU device the GPU and CPU tiers share the
/// machine's). Stated budgets are enforced when memory is reserved.
PlannedRun plan_run(const WeightSource& source, const EngineOptions& options, const kernels::Device& device);

}  // namespace sluice::offload
