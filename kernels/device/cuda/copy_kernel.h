// A copy made by a kernel instead of a copy engine.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

namespace sluice::kernels {

/// Enqueues the copy of `bytes` between addresses that kernels of the current device can use.
void copy_by_kernel(std::byte* to, const std::byte* from, std::int64_t bytes, cudaStream_t stream);

}  // namespace sluice::kernels
