// Fills the tiers with weights before a run: resident ones are read from the store, or made, and a synthetic
// model's disk part is written. Weights of a device with memory of its own go there through a bounce buffer.
// One thread calls; the pool helps.
#pragma once

#include <cstddef>
#include <span>
#include <stop_token>

#include "kernels/device/cpu/thread_pool.h"
#include "kernels/device/device.h"
#include "offload/io/block_io.h"
#include "offload/memory/tier_memory.h"
#include "offload/weights/weight_source.h"
#include "policy/run_shape.h"

namespace sluice::offload {

/// The place of a tensor that rests on the GPU or in CPU memory, padding included.
std::span<std::byte> resident_home(const policy::RunShape& shape, const TierMemory& memory,
                                   std::size_t tensor);

/// What loading works with; all outlive the call.
struct ResidentLoad {
  const WeightSource& source;
  const policy::RunShape& shape;
  const TierMemory& memory;
  kernels::Device& device;
  kernels::Stream& stream;  ///< carries bytes to the device's own memory
  BlockIo& io;
  kernels::ThreadPool& pool;
  std::stop_token stop;
};

/// Verifies checksums, and that matrices which are not dense can be read safely: those on disk are read once
/// for it. Takes 64 MiB of host memory on a device with memory of its own, up to 512 MiB (or the largest
/// matrix) for matrices to look at, and one matrix of a synthetic model that goes to disk or to such a
/// device; all of it is free again on return. Throws Error{kCorrupt} naming file and offset, {kIo},
/// {kDevice}, {kCancelled}.
void load_resident_weights(const ResidentLoad& load);

}  // namespace sluice::offload
