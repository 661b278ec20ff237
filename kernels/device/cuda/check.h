// Every CUDA call goes through CUDA_CHECK, which turns a failure into Error{kDevice} that names the call.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

namespace sluice::kernels {

[[noreturn]] void throw_cuda_failure(cudaError_t error, const char* call);
[[noreturn]] void throw_cublas_failure(cublasStatus_t status, const char* call);
/// For destructors: a failure is logged, once if it repeats; one at the end of the process is not worth a
/// line.
void log_cuda_failure(cudaError_t error, const char* call) noexcept;

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
