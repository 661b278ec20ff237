// What the shares of the roofline in `sluice bench spmm` refer to, measured on a CUDA device. Used by one
// thread.
#pragma once

#include "kernels/bench/cuda/cold_timer.h"
#include "kernels/bench/spmm_bench.h"

namespace sluice::kernels {

/// On `stream`, of the calling thread's current device; 4 GiB of its memory for as long as it takes. Throws
/// Error{kOutOfMemory, kDevice}.
SpmmDeviceRates measure_device_rates(Device& device, Stream& stream, ColdTimer& timer);

}  // namespace sluice::kernels
