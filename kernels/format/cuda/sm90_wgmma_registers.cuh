// The matrix product of a warpgroup with a in registers: 64 rows of a by 8..64 rows of b, 16 columns at a
// time, b in shared memory as sm90_wgmma.cuh says. For *.cu files only, inside code that is compiled for
// sm_90a.
#pragma once

#include "kernels/format/cuda/sm90_wgmma.cuh"
#include "kernels/format/cuda/sm90_wgmma_lists.cuh"

namespace sluice::kernels::sm90 {

// a: of thread t (w = t / 32, l = t % 32) rows 16 w + l / 4 + 8 (i % 2) and columns 8 (i / 2) + 2 (l % 4) +
// 0, 1 in register i. Sums lie as in sm90_wgmma.cuh.
#define SLUICE_WGMMA(n, type, list, a0, a1, a2, a3, b, ...)                                           \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\nwgmma.mma_async.sync.aligned.m64n" #n         \
               "k16.f32." type "." type " {" list "}, {%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #b \
               ", p, 1, 1, 0;\n}"                                                                     \
               : __VA_ARGS__                                                                          \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_rows))
#define SLUICE_PRODUCT(n, list, a0, a1, a2, a3, b, ...)                                       \
  template <bool kBf16>                                                                       \
  __device__ __forceinline__ void add_product(float(&d)[(n) / 2], const std::uint32_t(&a)[4], \
                                              std::uint64_t b_rows) {                         \
    if constexpr (kBf16) {                                                                    \
      SLUICE_WGMMA(n, "bf16", list, a0, a1, a2, a3, b, __VA_ARGS__);                          \
    } else {                                                                                  \
      SLUICE_WGMMA(n, "f16", list, a0, a1, a2, a3, b, __VA_ARGS__);                           \
    }                                                                                         \
  }

/// d += a * b^T, asynchronously: neither d nor a may be touched before products_wait. d has n / 2 sums.
SLUICE_PRODUCT(8, SLUICE_NAMES_4, 4, 5, 6, 7, 8, SLUICE_SUMS_4(0))
SLUICE_PRODUCT(16, SLUICE_NAMES_8, 8, 9, 10, 11, 12, SLUICE_SUMS_8(0))
SLUICE_PRODUCT(32, SLUICE_NAMES_16, 16, 17, 18, 19, 20, SLUICE_SUMS_16(0))
SLUICE_PRODUCT(64, SLUICE_NAMES_32, 32, 33, 34, 35, 36, SLUICE_SUMS_32(0))

/// Keeps the compiler from moving sums between registers among asynchronous products: around a run of those.
template <int kSums>
__device__ __forceinline__ void hold_sums(float (&d)[kSums]) {
#pragma unroll
  for (float& sum : d) asm volatile("" : "+f"(sum)::"memory");
}

#undef SLUICE_PRODUCT
#undef SLUICE_WGMMA

}  // namespace sluice::kernels::sm90
