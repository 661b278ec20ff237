// The matrix product of a warpgroup with half of a from registers: 64 rows of a, 32 columns of which two of
// every four are there, by 8..128 rows of b in shared memory (sm90_wgmma.cuh says how). For *.cu files only,
// inside code that is compiled for sm_90a.
#pragma once

#include "kernels/format/cuda/sm90_wgmma.cuh"
#include "kernels/format/cuda/sm90_wgmma_lists.cuh"

namespace sluice::kernels::sm90 {

/// operand_descriptor(address)'s low word: the high one is a constant, so that only this one is computed.
/// 32 columns further on: + kSparseColumnStep.
__device__ __forceinline__ std::uint32_t sparse_operand(SharedAddress address) {
  return 1U << 16 | (address >> 4);
}
inline constexpr std::uint32_t kSparseColumnStep = 32 * 2 / 16;

// Register r of lane l of warp w holds the two of row 16 w + l / 4 + 8 (r % 2), columns 4 q .. 4 q + 3 with
// q = l % 4 + 4 (r / 2). Their metadata, two numbers of two bits, is at bit 4 (q % 4) + 16 (row / 8 % 2) of
// lane 4 (row % 8) + 2 kSelector + q / 4. Sums as in sm90_wgmma.cuh.
#define SLUICE_WGMMA(n, type, list, a, b, m, s, ...)                                                 \
  asm volatile("{\n.reg .pred p;\n.reg .b64 rows;\nsetp.eq.u32 p, 0, 0;\nmov.b64 rows, {%" #b        \
               ", 0x40000040};\n"                                                                    \
               "wgmma.mma_async.sp.sync.aligned.m64n" #n "k32.f32." type "." type " {" list "}, {" a \
               "}, rows, %" #m ", %" #s ", p, 1, 1, 0;\n}"                                           \
               : __VA_ARGS__                                                                         \
               : "r"(a_pairs[0]), "r"(a_pairs[1]), "r"(a_pairs[2]), "r"(a_pairs[3]), "r"(b_rows),    \
                 "r"(metadata), "n"(kSelector))
#define SLUICE_PRODUCT(n, list, a, b, m, s, ...)                                                       \
  template <bool kBf16, int kSelector>                                                                 \
  __device__ __forceinline__ void sparse_product(float(&d)[(n) / 2], const std::uint32_t(&a_pairs)[4], \
                                                 std::uint32_t b_rows, std::uint32_t metadata) {       \
    if constexpr (kBf16) {                                                                             \
      SLUICE_WGMMA(n, "bf16", list, a, b, m, s, __VA_ARGS__);                                          \
    } else {                                                                                           \
      SLUICE_WGMMA(n, "f16", list, a, b, m, s, __VA_ARGS__);                                           \
    }                                                                                                  \
  }

/// d += a * b^T, asynchronously; d has n / 2 sums.
SLUICE_PRODUCT(8, SLUICE_NAMES_4, "%4, %5, %6, %7", 8, 9, 10, SLUICE_SUMS_4(0))
SLUICE_PRODUCT(16, SLUICE_NAMES_8, "%8, %9, %10, %11", 12, 13, 14, SLUICE_SUMS_8(0))
SLUICE_PRODUCT(32, SLUICE_NAMES_16, "%16, %17, %18, %19", 20, 21, 22, SLUICE_SUMS_16(0))
SLUICE_PRODUCT(64, SLUICE_NAMES_32, "%32, %33, %34, %35", 36, 37, 38, SLUICE_SUMS_32(0))
SLUICE_PRODUCT(128, SLUICE_NAMES_64, "%64, %65, %66, %67", 68, 69, 70, SLUICE_SUMS_64(0))

#undef SLUICE_PRODUCT
#undef SLUICE_WGMMA

}  // namespace sluice::kernels::sm90
