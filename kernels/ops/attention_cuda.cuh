// What the kernels of attention share: activations as operands, and tiles in shared memory. CUDA sources only
// (and without fmt, whose constant evaluation nvcc 13 rejects).
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "core/kv_page.h"
#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/device/cuda/tensor_core.cuh"
#include "kernels/ops/attention_cuda.h"
#include "kernels/ops/elements.cuh"

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
/// Two activations, as fp16.
__device__ inline std::uint32_t activations_to_half2(std::uint32_t pair, bool is_bf16) {
  if (!is_bf16) return pair;
  const float2 both = widen_pair(pair, true);
  return pack_half2(both.x, both.y);
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

/// Bytes between rows of a tile in shared memory: an odd number of 16-byte pieces, so that the 8 rows that
/// ldmatrix reads at once lie in different banks.
constexpr int row_pitch(int dim) { return dim * 2 + (dim / 8 % 2 == 0 ? 16 : 0); }

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace sluice::kernels::detail
