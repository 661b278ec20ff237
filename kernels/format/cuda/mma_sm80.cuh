// Instructions of compute capability 8.0 that fused products use: shared memory, and products of 16 x 8 x 16
// on tensor cores. For *.cu files only.
#pragma once

#include <cstdint>
#include <type_traits>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/device/cuda/copy_async.cuh"

namespace sluice::kernels::fused {

__device__ inline uint4 load_shared_16(std::uint32_t from) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(from)
               : "memory");
  return v;
}
__device__ inline std::uint32_t load_shared_4(std::uint32_t from) {
  std::uint32_t v;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(from) : "memory");
  return v;
}
__device__ inline void store_shared_16(std::uint32_t to, uint4 v) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}
__device__ inline void store_shared_4(std::uint32_t to, std::uint32_t v) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(v) : "memory");
}

/// Four matrices of 8 x 8 elements of 16 bits into one register each; lane l names row l mod 8 of matrix l
/// / 8.
__device__ inline void load_matrices(std::uint32_t row, std::uint32_t (&to)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(row)
               : "memory");
}

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

/// sums += a b, with a [16, 16] and b [16, 8] of T in the fragments of mma.m16n8k16.
template <class T>
__device__ void multiply_add(float4& sums, const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  if constexpr (std::is_same_v<T, __half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums.x), "+f"(sums.y), "+f"(sums.z), "+f"(sums.w)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums.x), "+f"(sums.y), "+f"(sums.z), "+f"(sums.w)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

}  // namespace sluice::kernels::fused
