// The placement for people who name none, until the planner exists: weights fill the GPU, then CPU memory,
// then disk; KV on the CPU and attended there; two GPU batches, and the largest block that fits. Pure,
// thread-safe.
#pragma once

#include <span>

#include "core/model/spec.h"
#include "core/tier.h"
#include "policy/placement.h"
#include "policy/run_shape.h"

namespace sluice::policy {

/// `tensors` are the stored sizes in model_tensors order. `wanted` gives what the caller fixed: its KV
/// format, prefetch depth, mixing and token bound are kept, and so are gpu_batch_size and num_gpu_batches if
/// above 0. If nothing fits, returns the smallest block with all weights on disk, which the memory plan then
/// refuses with the numbers.
Placement default_placement(const ModelSpec& spec, std::span<const TensorSize> tensors,
                            const Workload& workload, const PerTier<std::int64_t>& budgets,
                            const Placement& wanted, const DeviceTraits& traits);

}  // namespace sluice::policy
