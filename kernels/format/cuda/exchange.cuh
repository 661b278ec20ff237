// How thread blocks of the products of tiled_csl and bank_csl on sm_90a that share a row block add up what
// each has: a sum is left in memory that is zero until it is there, and its reader puts the zero back. So
// nothing has to be ordered by a fence, counted, or cleared ahead of a product; a reader asks until no zero
// is left. The other products count behind a fence (fused_epilogue.cuh). For *.cu files only.
#pragma once

#include <cstdint>

namespace sluice::kernels::fused {

/// -0 for 0, which adds like it to a sum that began with 0.
__device__ __forceinline__ float as_present(float sum) {
  return __float_as_uint(sum) == 0 ? __uint_as_float(0x80000000U) : sum;
}
__device__ __forceinline__ bool is_present(const float4& sums) {
  return __float_as_uint(sums.x) != 0 && __float_as_uint(sums.y) != 0 && __float_as_uint(sums.z) != 0 &&
         __float_as_uint(sums.w) != 0;
}
__device__ __forceinline__ void store_relaxed(float4* to, const float4& v) {
  asm volatile("st.relaxed.gpu.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(v.x), "f"(v.y), "f"(v.z),
               "f"(v.w)
               : "memory");
}
__device__ __forceinline__ float4 load_relaxed(const float4* from) {
  float4 v;
  asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "l"(from)
               : "memory");
  return v;
}

/// Leaves four sums for whoever takes them, at a place that is zero.
__device__ __forceinline__ void leave_sums(float4* place, const float4& sums) {
  store_relaxed(place,
                make_float4(as_present(sums.x), as_present(sums.y), as_present(sums.z), as_present(sums.w)));
}

__device__ __forceinline__ float4 load_left_sums(const float4* place) { return load_relaxed(place); }
__device__ __forceinline__ void clear_left_sums(float4* place) {
  store_relaxed(place, make_float4(0, 0, 0, 0));
}

__device__ __forceinline__ void add_to(float4& sum, const float4& part) {
  sum.x += part.x;
  sum.y += part.y;
  sum.z += part.z;
  sum.w += part.w;
}

}  // namespace sluice::kernels::fused
