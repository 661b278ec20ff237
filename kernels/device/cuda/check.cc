#include "kernels/device/cuda/check.h"

#include <atomic>

#include "core/error.h"
#include "core/log.h"

namespace sluice::kernels {

void throw_cuda_failure(cudaError_t error, const char* call) {
  const bool memory = error == cudaErrorMemoryAllocation;
  throw Error(memory ? Code::kOutOfMemory : Code::kDevice,
              fmt::format("CUDA: {} ({}) from {}", cudaGetErrorString(error), cudaGetErrorName(error), call),
              memory ? "lower --gpu-memory" : "see the driver's log (dmesg, nvidia-smi -q), then run again");
}

void throw_cublas_failure(cublasStatus_t status, const char* call) {
  throw Error(Code::kDevice, fmt::format("cuBLAS: {} from {}", cublasLtGetStatusString(status), call),
              "see the driver's log (dmesg, nvidia-smi -q), then run again");
}

void log_cuda_failure(cudaError_t error, const char* call) noexcept {
  if (error == cudaErrorCudartUnloading) return;
  // A device that failed fails every later call the same way, once for each of a thousand events.
  static std::atomic<cudaError_t> last_logged{cudaSuccess};
  if (last_logged.exchange(error) == error) return;
  try {
    log_warn("CUDA: {} ({}) from {}", cudaGetErrorString(error), cudaGetErrorName(error), call);
  } catch (...) {  // NOLINT(bugprone-empty-catch): a destructor has nobody to tell
  }
}

}  // namespace sluice::kernels
