// Every CUDA call goes through CUDA_CHECK, which turns a failure into Error{kDevice} that names the call.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

namespace sluice::kernels {

[[noreturn]] void throw_cuda_failure(cudaError_t error, const char* call);
[[noreturn]] void throw_cublas_failure(cublasStatus_t status, const char* call);
/// For destructors: a failure is logged, but not the same one again and again, and one at the end of the
/// process is not worth a line. Thread-safe.
void log_cuda_failure(cudaError_t error, const char* call) noexcept;

/// The oldest compute capability that the kernels are written for.
constexpr int kOldestMajor = 8, kOldestMinor = 0;
constexpr bool is_new_enough(int major, int minor) {
  return major > kOldestMajor || (major == kOldestMajor && minor >= kOldestMinor);
}
/// Throws Error{kUnsupported} with both compute capabilities if the device is older.
void check_architecture(const char* device_name, int major, int minor);
/// Throws Error{kUnsupported} if this build has no code of the kernel for the calling thread's current
/// device.
void check_kernel_built(const void* kernel, const char* device_name, int major, int minor);
/// Any kernel of the build, for that check.
const void* probe_kernel_address();

#define CUDA_CHECK(call)                                              \
  do {                                                                \
    const cudaError_t cuda_check_error = (call);                      \
    if (cuda_check_error != cudaSuccess) [[unlikely]] {               \
      ::sluice::kernels::throw_cuda_failure(cuda_check_error, #call); \
    }                                                                 \
  } while (false)

#define CUBLAS_CHECK(call)                                                 \
  do {                                                                     \
    const cublasStatus_t cublas_check_status = (call);                     \
    if (cublas_check_status != CUBLAS_STATUS_SUCCESS) [[unlikely]] {       \
      ::sluice::kernels::throw_cublas_failure(cublas_check_status, #call); \
    }                                                                      \
  } while (false)

}  // namespace sluice::kernels
