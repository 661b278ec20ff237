// A kernel's launch on a bare stream: its shared memory, whether it may start early, and what it calls if it
// may. Who has a CudaStream takes launch.cuh, for the stream knows what may overlap. CUDA sources only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/device/cuda/check.h"

namespace sluice::kernels {

/// Whether a kernel may start before the one ahead of it on its stream has ended (programmatic dependent
/// launch, compute capability 9 and later).
enum class Overlap : std::uint8_t { kNone, kAllowed };

/// Returns when the kernels ahead have ended; what they wrote is seen. In a kernel that may start early,
/// before any of its threads writes to device memory or reads there what the kernel directly ahead writes:
/// weights, say, may be read earlier.
__device__ __forceinline__ void wait_for_kernels_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// The next kernel may start once every block of this one has called this or ended. Called after the wait,
/// so that whoever starts early finds all work done but that of this kernel. The products of sm_90a call it
/// earlier: behind them only what no kernel writes may be read ahead of the wait.
__device__ __forceinline__ void let_next_kernel_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// `shared_bytes`: of dynamic shared memory, up to all that a block of the device can have. Throws
/// Error{kDevice}.
template <class... Parameters>
void launch_kernel(cudaStream_t stream, Overlap overlap, void (*kernel)(Parameters...), dim3 grid,
                   int threads, int shared_bytes, const std::type_identity_t<Parameters>&... arguments) {
  if (shared_bytes > 0)
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = overlap == Overlap::kAllowed ? 1 : 0;
  CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, arguments...));
}

}  // namespace sluice::kernels
