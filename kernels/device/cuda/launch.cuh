// Launches that overlap: on devices of compute capability 9 and later a kernel may start while the one before
// it on the stream still runs (programmatic dependent launch), so that its launch, and what it reads that no
// kernel ahead of it writes, cost no time. Nothing but a kernel between the two prevents it: an event or a
// copy does. CUDA sources only.
#pragma once

#include <type_traits>

#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/device/cuda/launch_kernel.cuh"

namespace sluice::kernels {

/// Every thread of a kernel launched by launch_overlapping calls this. Before it the kernel reads only what
/// the kernel directly ahead of it does not write (weights, say), and writes nothing.
__device__ inline void wait_for_kernels_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// The next kernel may start once every CTA of this one has called this or ended. Called after the wait, so
/// that whoever starts early finds all work done but that of this kernel.
__device__ inline void let_next_kernel_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

template <class... Parameters>
void launch_overlapping(CudaStream& stream, void (*kernel)(Parameters...), dim3 grid, int threads,
                        int shared_bytes, const std::type_identity_t<Parameters>&... arguments) {
  const Overlap overlap = stream.take_overlap() ? Overlap::kAllowed : Overlap::kNone;
  launch_kernel(stream.raw(), overlap, kernel, grid, threads, shared_bytes, arguments...);
}

}  // namespace sluice::kernels
