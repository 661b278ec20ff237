// Owners of CUDA handles: move-only, released by a destructor that logs and never throws. Nothing with a CUDA
// handle has static lifetime.
#pragma once

#include <memory>

#include "kernels/device/cuda/check.h"

namespace sluice::kernels {

template <class Raw, auto Destroy>
struct CudaDelete {
  using pointer = Raw;
  void operator()(Raw raw) const noexcept {
    const cudaError_t error = Destroy(raw);
    if (error != cudaSuccess) log_cuda_failure(error, "release of a handle");
  }
};
struct CublasLtDelete {
  using pointer = cublasLtHandle_t;
  void operator()(cublasLtHandle_t raw) const noexcept { cublasLtDestroy(raw); }
};

using UniqueStream = std::unique_ptr<cudaStream_t, CudaDelete<cudaStream_t, cudaStreamDestroy>>;
using UniqueEvent = std::unique_ptr<cudaEvent_t, CudaDelete<cudaEvent_t, cudaEventDestroy>>;
using UniqueDeviceMemory = std::unique_ptr<void*, CudaDelete<void*, cudaFree>>;
using UniqueHostMemory = std::unique_ptr<void*, CudaDelete<void*, cudaFreeHost>>;
using UniqueRegistration = std::unique_ptr<void*, CudaDelete<void*, cudaHostUnregister>>;
using UniqueCublasLt = std::unique_ptr<cublasLtHandle_t, CublasLtDelete>;
static_assert(sizeof(UniqueStream) == sizeof(cudaStream_t));

}  // namespace sluice::kernels
