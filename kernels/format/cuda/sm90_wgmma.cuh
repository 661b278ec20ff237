// The matrix product of a warpgroup: 64 rows of a by 8..128 rows of b, 16 columns at a time, both in shared
// memory in rows of 128 bytes with the 128-byte swizzle. For *.cu files only, inside code that
// is compiled for sm_90a.
#pragma once

#include "kernels/format/cuda/sm90_instructions.cuh"
#include "kernels/format/cuda/sm90_wgmma_lists.cuh"

namespace sluice::kernels::sm90 {

/// Of rows of 64 elements from `address` on, a multiple of 1024: eight rows are 1024 bytes. 16 columns
/// further on: + kColumnStep.
__device__ __forceinline__ std::uint64_t operand_descriptor(SharedAddress address) {
  constexpr std::uint64_t kSwizzle128 = std::uint64_t{1} << 62;
  constexpr std::uint64_t kEightRows = std::uint64_t{1024 / 16} << 32;
  constexpr std::uint64_t kUnusedStride = std::uint64_t{1} << 16;
  return kSwizzle128 | kEightRows | kUnusedStride | (address >> 4);
}
inline constexpr std::uint64_t kColumnStep = 16 * 2 / 16;
/// From one 64 rows to the next.
inline constexpr std::uint64_t kRowStep = 64 * 128 / 16;

/// Ahead of the first product after registers were touched.
__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Accumulator 4 j + e of thread t (w = t / 32, l = t % 32) is that of row 16 w + l / 4 + 8 (e / 2) of a and
// row 8 j + 2 (l % 4) + e % 2 of b.
#define SLUICE_WGMMA(n, type, list, a, b, s, ...)                                                           \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #s                                                      \
               ", 0;\n"                                                                                     \
               "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " {" list "}, %" #a ", %" #b \
               ", p, 1, 1, 0, 0;\n}"                                                                        \
               : __VA_ARGS__                                                                                \
               : "l"(a_rows), "l"(b_rows), "r"(static_cast<int>(add)))
#define SLUICE_PRODUCT(n, list, a, b, s, ...)                                                             \
  template <bool kBf16>                                                                                   \
  __device__ __forceinline__ void product(float(&d)[(n) / 2], std::uint64_t a_rows, std::uint64_t b_rows, \
                                          bool add) {                                                     \
    if constexpr (kBf16) {                                                                                \
      SLUICE_WGMMA(n, "bf16", list, a, b, s, __VA_ARGS__);                                                \
    } else {                                                                                              \
      SLUICE_WGMMA(n, "f16", list, a, b, s, __VA_ARGS__);                                                 \
    }                                                                                                     \
  }

/// d = (add ? d : 0) + a * b^T, asynchronously; d has n / 2 sums.
SLUICE_PRODUCT(8, SLUICE_NAMES_4, 4, 5, 6, SLUICE_SUMS_4(0))
SLUICE_PRODUCT(16, SLUICE_NAMES_8, 8, 9, 10, SLUICE_SUMS_8(0))
SLUICE_PRODUCT(32, SLUICE_NAMES_16, 16, 17, 18, SLUICE_SUMS_16(0))
SLUICE_PRODUCT(128, SLUICE_NAMES_64, 64, 65, 66, SLUICE_SUMS_64(0))

#undef SLUICE_PRODUCT
#undef SLUICE_WGMMA

}  // namespace sluice::kernels::sm90
