// A tile of the sparse formats in shared memory, as kernels/format/tiled_csl/shared_tile.h describes it:
// cleared, filled with words, and written out. A whole block of threads does each. For *.cu files only.
#pragma once

#include <cstdint>

#include "kernels/format/cuda/expand_cuda.cuh"
#include "kernels/format/tiled_csl/shared_tile.h"

namespace sluice::kernels::detail {

inline constexpr int kRowVectors = kSharedCols / kVector;

template <int kRows, int kThreads>
struct BlockTile {
  static constexpr int kVectors = kRows * kRowVectors;
  static_assert(kVectors % kThreads == 0);

  std::uint16_t* values;  // [kRows][64], aligned to 16

  __device__ void clear() const {
#pragma unroll
    for (int i = 0; i < kVectors / kThreads; ++i)
      reinterpret_cast<uint4*>(values)[i * kThreads + static_cast<int>(threadIdx.x)] = {0, 0, 0, 0};
  }
  __device__ void store(std::uint32_t word) const {
    *reinterpret_cast<std::uint16_t*>(reinterpret_cast<char*>(values) + (word >> 16)) =
        static_cast<std::uint16_t>(word);
  }
  /// Four words of a list: their order makes the stores of a warp free of bank conflicts, or nearly.
  __device__ void store(const uint4& words) const {
    store(words.x);
    store(words.y);
    store(words.z);
    store(words.w);
  }
  /// Row 0, column 0 of the tile go to (row, col) of `out`, which has `num_rows` rows.
  __device__ void write(const ExpandedRows& out, std::int64_t num_rows, std::int64_t row,
                        std::int64_t col) const {
#pragma unroll 4
    for (int i = 0; i < kVectors / kThreads; ++i) {
      const int vector = i * kThreads + static_cast<int>(threadIdx.x);
      const int r = vector / kRowVectors;
      const int c = vector % kRowVectors * kVector;
      if (row + r >= num_rows) return;
      const int swizzled = c ^ ((r & 7) << 3);  // swizzled_col is for the host
      out.store(row + r, col + c, *reinterpret_cast<const uint4*>(values + r * kSharedCols + swizzled));
    }
  }
};

}  // namespace sluice::kernels::detail
