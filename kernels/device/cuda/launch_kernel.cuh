// A kernel's launch on a bare stream: its shared memory, and whether it may start early. Who has a CudaStream
// takes launch.cuh, for the stream knows what may overlap. CUDA sources only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/device/cuda/check.h"

namespace sluice::kernels {

/// Whether a kernel may start before the one ahead of it on its stream has ended (programmatic dependent
/// launch, compute capability 9 and later).
enum class Overlap : std::uint8_t { kNone, kAllowed };

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
