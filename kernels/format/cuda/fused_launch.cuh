// What the launches of fused products share on the host. For *.cu files only.
#pragma once

#include <algorithm>

#include "kernels/device/cuda/check.h"
#include "kernels/format/cuda/fused_cuda.h"
#include "kernels/format/cuda/fused_epilogue.cuh"

namespace sluice::kernels::fused {

constexpr std::int64_t div_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Of the current device.
inline int num_multiprocessors() {
  int device = 0, count = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return count;
}

/// The division of a weight into runs: so many for each multiprocessor, if each gets `min_units` at least.
/// Where `tiles` and runs do not depend on the number of rows of x either (they do for pairs24), a row's sum
/// has the same order whatever its company. Only a batch-invariant stream promises that, and it expands.
inline StreamK divide_work(std::int64_t tiles, std::int64_t per_tile, std::int64_t min_units,
                           int blocks_per_multiprocessor) {
  const std::int64_t units = tiles * per_tile;
  const std::int64_t most = std::int64_t{blocks_per_multiprocessor} * num_multiprocessors();
  const std::int64_t blocks = std::clamp(units / min_units, std::int64_t{1}, most);
  return {.base = static_cast<std::int32_t>(units / blocks),
          .extra = static_cast<std::int32_t>(units % blocks),
          .per_tile = static_cast<std::int32_t>(per_tile),
          .blocks = static_cast<std::int32_t>(blocks)};
}

inline bool has_aligned_x(const LinearArgs& args) {
  return is_vector_aligned(args.x.data, args.x.rows > 1 ? args.x.stride * 2 : 0);
}

/// Whether types, alignment and number of rows are those that the products take.
inline bool can_multiply(const LinearArgs& args, std::int64_t max_rows) {
  return args.x.rows >= 1 && args.x.rows <= max_rows && args.weight.rows >= 1 && args.weight.cols >= 1 &&
         args.weight.rows <= (std::int64_t{1} << 40) / args.weight.cols &&
         args.x.dtype == args.weight.format.dtype &&
         (args.y.dtype == args.x.dtype || (args.y.dtype == DType::kF32 && args.residual.data == nullptr)) &&
         reinterpret_cast<std::uintptr_t>(args.weight.data.data()) % 16 == 0;
}

template <class Tile, class Params>
void launch(void (*kernel)(Params), const Params& p, cudaStream_t stream) {
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kSharedBytes));
  kernel<<<static_cast<unsigned>(p.work.blocks), Tile::kThreads, Tile::kSharedBytes, stream>>>(p);
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace sluice::kernels::fused
