// What fused products for compute capability 8.0 and later are made of: the warp's instructions, and operands
// whose rows have any alignment. For *.cu files only.
#pragma once

#include <cstdint>

#include "kernels/device/cuda/tensor_core.cuh"

namespace sluice::kernels::fused {

/// Eight elements of 16 bits from `col` on of a row of any alignment, with zeros behind column `cols`.
template <class T>
__device__ uint4 gather_unit(const T* row, int col, int cols) {
  std::uint32_t pairs[4] = {};
#pragma unroll
  for (int c = 0; c < 8; ++c)
    if (col + c < cols)
      pairs[c / 2] |= std::uint32_t{reinterpret_cast<const std::uint16_t*>(row)[col + c]} << c % 2 * 16;
  return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}

}  // namespace sluice::kernels::fused
