// What a hardware profile says of a run before it is played: the rates of work_floor, and the most that each
// lane can move. Pure, thread-safe.
#pragma once

#include <array>
#include <span>

#include "core/format.h"
#include "policy/hardware.h"
#include "policy/run_shape.h"
#include "policy/step.h"
#include "policy/work_floor.h"

namespace sluice::policy {

/// The rates of a profile for weights in `formats` (model_tensors order; empty: all dense). Where the CPU
/// attends beside a GPU, those of the link and of attention are as measured together; lanes that share the
/// cores of a CPU device take turns, so there each has what it has alone.
MeasuredRates measured_rates(const HardwareProfile& hardware, const RunShape& shape,
                             std::span<const Encoding> formats);

/// The highest measured bytes per second of each lane alone; 0 for the gpu lane, whose work is no bytes.
std::array<double, kNumLanes> peak_rates(const HardwareProfile& hardware, KvFormat kv_format);

}  // namespace sluice::policy
