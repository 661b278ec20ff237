#include "kernels/device/cuda/urgent_stream.h"

#include "kernels/device/cuda/check.h"
#include "kernels/device/cuda/copy_kernel.h"

namespace sluice::kernels {
namespace {

/// The address by which kernels know `data`; null for host memory that is not pinned, even where kernels
/// could read it page by page. What starts in pinned memory is taken to end there.
void* kernel_address(const std::byte* data) {
  cudaPointerAttributes attributes{};
  CUDA_CHECK(cudaPointerGetAttributes(&attributes, data));
  return attributes.type == cudaMemoryTypeUnregistered ? nullptr : attributes.devicePointer;
}

}  // namespace

void UrgentStream::copy(std::byte* to, const std::byte* from, std::int64_t bytes) {
  if (bytes > 0 && bytes <= kMostByKernel) {
    void* const to_address = kernel_address(to);
    const void* const from_address = kernel_address(from);
    if (to_address != nullptr && from_address != nullptr) {
      copy_by_kernel(static_cast<std::byte*>(to_address), static_cast<const std::byte*>(from_address), bytes,
                     raw());
      return;
    }
  }
  CudaStream::copy(to, from, bytes);
}

}  // namespace sluice::kernels
