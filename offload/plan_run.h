// From options to a plan that fits: fills in what the caller left open, derives the run's shape, and shrinks
// its workspace to the GPU budget.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/units.h"
#include "kernels/device/device.h"
#include "offload/engine.h"
#include "offload/weights/weight_source.h"
#include "policy/memory_plan.h"
#include "policy/run_shape.h"

namespace sluice::offload {

/// Kernels that libraries load beside the arena took 9 to 35 MiB of an nvidia-h200 in every run that was
/// looked at; this much of a stated budget of a device's own memory is left to them.
constexpr std::int64_t kKernelBytes = 64_MiB;
constexpr std::int64_t arena_budget(std::int64_t stated) {
  return std::max<std::int64_t>(0, stated - kKernelBytes);
}

/// What policy must know of the kind of device that runs this model with these options.
policy::DeviceTraits run_traits(const WeightSource& source, const EngineOptions& options,
                                kernels::DeviceKind kind);

struct PlannedRun {
  policy::RunShape shape;
  policy::MemoryPlan memory;
  PerTier<std::int64_t> budget_bytes{};
};

/// Throws Error{kInvalidArgument} for contradictions and Error{kOutOfMemory} if the plan exceeds 90 % of what
/// the machine, or the device's own memory, has free (on the CPU device the GPU and CPU tiers share the
/// machine's). Stated budgets, less the kernels' part, are enforced when memory is reserved.
PlannedRun plan_run(const WeightSource& source, const EngineOptions& options, const kernels::Device& device);

}  // namespace sluice::offload
