// Launches that overlap: on devices of compute capability 9 and later a kernel may start while the one before
// it on the stream still runs (programmatic dependent launch), so that its launch, and what it reads that no
// kernel ahead of it writes, cost no time. Nothing but a kernel between the two prevents it: an event or a
// copy does. What such a kernel calls is in launch_kernel.cuh. CUDA sources only.
#pragma once

#include <type_traits>

#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/device/cuda/launch_kernel.cuh"

namespace sluice::kernels {

template <class... Parameters>
void launch_overlapping(CudaStream& stream, void (*kernel)(Parameters...), dim3 grid, int threads,
                        int shared_bytes, const std::type_identity_t<Parameters>&... arguments) {
  const Overlap overlap = stream.take_overlap() ? Overlap::kAllowed : Overlap::kNone;
  launch_kernel(stream.raw(), overlap, kernel, grid, threads, shared_bytes, arguments...);
}

}  // namespace sluice::kernels
