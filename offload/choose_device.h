// From what was asked to the device of a run.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "kernels/device/device.h"
#include "offload/engine.h"
#include "offload/memory/host_weights.h"
#include "offload/weights/weight_source.h"
#include "policy/run_shape.h"

namespace sluice::offload {

/// Reads "auto", "cpu", "cuda" or "cuda:N". Throws Error{kInvalidArgument}.
DeviceChoice parse_device(const std::string& text);

/// The choice with kAuto resolved on this machine.
DeviceChoice choose_device(const DeviceChoice& asked);
/// Of a choice that is resolved.
kernels::DeviceKind device_kind(const DeviceChoice& chosen);
/// What policy must know of the device that runs a model with these weights. `chosen` is resolved.
policy::DeviceTraits device_traits(const WeightSource& weights, const DeviceChoice& chosen,
                                   HostWeights host_weights = HostWeights::kPinned);
/// Bytes of its own memory that can be allocated now; empty for a device whose GPU tier is host memory.
std::optional<std::int64_t> device_free_bytes(const DeviceChoice& chosen);
/// All cores; on a CUDA device all but one, which drives it.
int default_threads(const DeviceChoice& chosen);
/// Throws Error{kDevice, kUnsupported} if there is no such device. `pool` outlives a CPU device.
std::unique_ptr<kernels::Device> make_device(const DeviceChoice& asked, kernels::ThreadPool& pool);

}  // namespace sluice::offload
