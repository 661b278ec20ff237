#include <cuda_runtime_api.h>

#include "kernels/device/cuda/check.h"
#include "kernels/device/cuda/launches_overlap.h"

namespace sluice::kernels::detail {
namespace {

constexpr int kFirstArchitecture = 90;

__global__ void probe_kernel() {}

}  // namespace

bool launches_overlap() {
  int ordinal = 0;
  int major = 0;
  CUDA_CHECK(cudaGetDevice(&ordinal));
  CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal));
  if (10 * major < kFirstArchitecture) return false;
  cudaFuncAttributes attributes{};  // code for an older architecture, translated for this one, does not wait
  CUDA_CHECK(cudaFuncGetAttributes(&attributes, probe_kernel));
  return attributes.ptxVersion >= kFirstArchitecture;
}

}  // namespace sluice::kernels::detail
