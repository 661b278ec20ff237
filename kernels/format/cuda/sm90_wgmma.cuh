// The matrix product of a warpgroup: 64 rows of a by 8..128 rows of b, 16 columns at a time, both in shared
// memory in rows of 128 bytes with the 128-byte swizzle. For *.cu files only, inside code that
// is compiled for sm_90a.
#pragma once

#include "kernels/format/cuda/sm90_instructions.cuh"

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
#define SLUICE_F4(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define SLUICE_F8(i) SLUICE_F4(i), SLUICE_F4((i) + 4)
#define SLUICE_F16(i) SLUICE_F8(i), SLUICE_F8((i) + 8)
#define SLUICE_F32(i) SLUICE_F16(i), SLUICE_F16((i) + 16)
#define SLUICE_F64(i) SLUICE_F32(i), SLUICE_F32((i) + 32)
#define SLUICE_R4 "%0, %1, %2, %3"
#define SLUICE_R8 SLUICE_R4 ", %4, %5, %6, %7"
#define SLUICE_R16 SLUICE_R8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define SLUICE_R32 \
  SLUICE_R16       \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SLUICE_R64                                                                     \
  SLUICE_R32                                                                           \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
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
SLUICE_PRODUCT(8, SLUICE_R4, 4, 5, 6, SLUICE_F4(0))
SLUICE_PRODUCT(16, SLUICE_R8, 8, 9, 10, SLUICE_F8(0))
SLUICE_PRODUCT(32, SLUICE_R16, 16, 17, 18, SLUICE_F16(0))
SLUICE_PRODUCT(128, SLUICE_R64, 64, 65, 66, SLUICE_F64(0))

#undef SLUICE_PRODUCT
#undef SLUICE_WGMMA
#undef SLUICE_R64
#undef SLUICE_R32
#undef SLUICE_R16
#undef SLUICE_R8
#undef SLUICE_R4
#undef SLUICE_F64
#undef SLUICE_F32
#undef SLUICE_F16
#undef SLUICE_F8
#undef SLUICE_F4

}  // namespace sluice::kernels::sm90
