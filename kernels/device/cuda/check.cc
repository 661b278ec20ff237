#include "kernels/device/cuda/check.h"

#include <atomic>

#include "core/error.h"
#include "core/log.h"

namespace sluice::kernels {
namespace {

struct Verdict {
  Code code;
  const char* fix;
};

Verdict verdict(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return {Code::kOutOfMemory, "lower --gpu-memory, or end the other programs on this GPU"};
    case cudaErrorDevicesUnavailable:
    case cudaErrorDeviceAlreadyInUse:
      return {Code::kDevice, "end the other programs on this GPU, or name another one with --device cuda:N"};
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
      return {Code::kUnsupported,
              "build with this GPU among SLUICE_CUDA_ARCHITECTURES, update the driver, or use --device cpu"};
    default:
      return {Code::kDevice, "see the driver's log (dmesg, nvidia-smi -q), then run again"};
  }
}

}  // namespace

void throw_cuda_failure(cudaError_t error, const char* call) {
  const auto [code, fix] = verdict(error);
  throw Error(code,
              fmt::format("CUDA: {} ({}) from {}", cudaGetErrorString(error), cudaGetErrorName(error), call),
              fix);
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
