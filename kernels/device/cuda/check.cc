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
  const auto [code, fix] =
      verdict(status == CUBLAS_STATUS_ALLOC_FAILED ? cudaErrorMemoryAllocation : cudaErrorUnknown);
  throw Error(code, fmt::format("cuBLAS: {} from {}", cublasLtGetStatusString(status), call), fix);
}

void check_architecture(const char* device_name, int major, int minor) {
  SLUICE_CHECK(is_new_enough(major, minor), Code::kUnsupported,
               fmt::format("{} has compute capability {}.{}, Sluice needs {}.{}", device_name, major, minor,
                           kOldestMajor, kOldestMinor),
               "use --device cpu, or a GPU of the Ampere generation or later");
}

void check_kernel_built(const void* kernel, const char* device_name, int major, int minor) {
  cudaFuncAttributes attributes{};
  const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();  // it is reported here
  if (error != cudaErrorNoKernelImageForDevice && error != cudaErrorInvalidDeviceFunction &&
      error != cudaErrorUnsupportedPtxVersion) {
    throw_cuda_failure(error, "cudaFuncGetAttributes");
  }
  throw Error(
      Code::kUnsupported,
      fmt::format("this build has no kernels for {} (sm_{}{}): {}", device_name, major, minor,
                  cudaGetErrorString(error)),
      fmt::format("build with {}{}{} among SLUICE_CUDA_ARCHITECTURES, update the driver, or use --device cpu",
                  major, minor, major == 9 && minor == 0 ? "a" : ""));
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
