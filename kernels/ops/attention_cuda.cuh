// What the kernels of attention share: PTX of the tensor cores, activations as operands. CUDA sources only
// (and without fmt, whose constant evaluation nvcc 13 rejects).
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "core/kv_page.h"
#include "kernels/device/cuda/copy_async.cuh"
#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/ops/attention_cuda.h"

namespace sluice::kernels::detail {

// Activations. All kernels compute in fp16 or fp32 and meet the activation type only where they read q and
// write out. bf16 becomes fp16 without loss inside fp16's normal range; a q beyond it would belong to a k
// that its page could not hold either.

struct Activations {
  const std::uint16_t* q;
  std::uint16_t* out;
  std::int64_t q_stride, out_stride;
  bool is_bf16;
  bool wide_q, wide_out;  // rows of 16-byte pieces that are aligned
};

inline bool rows_are_aligned(const void* data, std::int64_t stride, std::int64_t bytes) {
  return reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uintptr_t>(bytes) == 0 &&
         stride * 2 % bytes == 0;
}

inline Activations lower_activations(const AttentionArgs& args) {
  return {.q = reinterpret_cast<const std::uint16_t*>(args.q.data),
          .out = reinterpret_cast<std::uint16_t*>(args.out.data),
          .q_stride = args.q.stride,
          .out_stride = args.out.stride,
          .is_bf16 = args.q.dtype == DType::kBF16,
          .wide_q = rows_are_aligned(args.q.data, args.q.stride, 16),
          .wide_out = rows_are_aligned(args.out.data, args.out.stride, 16)};
}

__device__ inline float activation_to_float(std::uint16_t bits, bool is_bf16) {
  return is_bf16 ? __bfloat162float(__ushort_as_bfloat16(bits)) : __half2float(__ushort_as_half(bits));
}
__device__ inline std::uint16_t float_to_activation(float x, bool is_bf16) {
  return is_bf16 ? __bfloat16_as_ushort(__float2bfloat16_rn(x)) : __half_as_ushort(__float2half_rn(x));
}
__device__ inline std::uint32_t pack_half2(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
__device__ inline std::uint32_t pack_activations(float low, float high, bool is_bf16) {
  if (!is_bf16) return pack_half2(low, high);
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
/// Two activations, as fp16.
__device__ inline std::uint32_t activations_to_half2(std::uint32_t pair, bool is_bf16) {
  if (!is_bf16) return pair;
  return pack_half2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000U));
}
/// Eight activations, as they are. `wide`: `x` is aligned to 16.
__device__ inline uint4 load_8(const std::uint16_t* x, bool wide) {
  if (wide) return *reinterpret_cast<const uint4*>(x);
  std::uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = x[2 * i] | static_cast<std::uint32_t>(x[2 * i + 1]) << 16;
  return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}
__device__ inline void store_8(std::uint16_t* to, uint4 x, bool wide) {
  if (wide) {
    *reinterpret_cast<uint4*>(to) = x;
    return;
  }
  const std::uint32_t pairs[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    to[2 * i] = static_cast<std::uint16_t>(pairs[i]);
    to[2 * i + 1] = static_cast<std::uint16_t>(pairs[i] >> 16);
  }
}

// PTX. Shared memory is named by its 32-bit address. Tiles in shared memory have rows of an odd number of
// 16-byte pieces, so that the 8 rows that ldmatrix reads at once lie in different banks.

constexpr int row_pitch(int dim) { return dim * 2 + (dim / 8 % 2 == 0 ? 16 : 0); }

__device__ inline void store_16(std::uint32_t to, uint4 x) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
               : "memory");
}
__device__ inline void store_4(std::uint32_t to, std::uint32_t x) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(x) : "memory");
}
__device__ inline uint4 read_16(std::uint32_t from) {
  uint4 x;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "r"(from)
               : "memory");
  return x;
}
/// Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline void load_matrices(std::uint32_t (&x)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(address)
               : "memory");
}
__device__ inline void load_transposed(std::uint32_t (&x)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(address)
               : "memory");
}
/// An 8x8 matrix of 16-bit elements across the warp's registers, transposed.
__device__ inline std::uint32_t transpose(std::uint32_t x) {
  std::uint32_t y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}
/// c[16, 8] += a[16, 16] b[16, 8]
__device__ inline void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                    std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace sluice::kernels::detail
