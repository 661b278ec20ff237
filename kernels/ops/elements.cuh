// 16-bit elements in CUDA kernels: conversions, and 16-byte vectors of eight. For *.cu files only.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "core/dtype.h"

namespace sluice::kernels {

template <class T>
struct ElementType;
template <>
struct ElementType<__half> {
  static constexpr DType kDType = DType::kF16;
};
template <>
struct ElementType<__nv_bfloat16> {
  static constexpr DType kDType = DType::kBF16;
};

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(__half x) { return __half2float(x); }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

/// Rounds to nearest even.
template <class T>
__device__ T narrow(float x);
template <>
__device__ inline float narrow<float>(float x) {
  return x;
}
template <>
__device__ inline __half narrow<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

/// Eight 16-bit elements, loaded and stored at once: addresses are multiples of 16.
inline constexpr int kVector = 8;
template <class T>
struct alignas(16) Vector {
  T lane[kVector];
};

template <class T>
__device__ Vector<T> load_vector(const T* from) {
  return *reinterpret_cast<const Vector<T>*>(from);
}
template <class T>
__device__ void store_vector(T* to, const Vector<T>& vector) {
  *reinterpret_cast<Vector<T>*>(to) = vector;
}

/// Element `i` of a vector whose type is known at run time.
__device__ inline float widen_element(const void* data, bool is_bf16, std::int64_t i) {
  return is_bf16 ? widen(static_cast<const __nv_bfloat16*>(data)[i])
                 : widen(static_cast<const __half*>(data)[i]);
}

__device__ inline std::uint32_t pack_half2(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
/// Two elements in a word, the first one low, whose type is known at run time. Rounds to nearest even.
__device__ inline std::uint32_t narrow_pair(float low, float high, bool is_bf16) {
  if (!is_bf16) return pack_half2(low, high);
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
/// The other way.
__device__ inline float2 widen_pair(std::uint32_t pair, bool is_bf16) {
  if (is_bf16) return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000U)};
  return __half22float2(*reinterpret_cast<const __half2*>(&pair));
}

/// Whether rows that start at `data`, `stride_bytes` apart, all start at multiples of 16 bytes.
inline bool is_vector_aligned(const void* data, std::int64_t stride_bytes) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && stride_bytes % 16 == 0;
}

/// Calls `body` with a value of the 16-bit type `dtype`.
template <class Body>
void with_element_type(DType dtype, Body body) {
  if (dtype == DType::kBF16) {
    body(__nv_bfloat16{});
  } else {
    body(__half{});
  }
}

}  // namespace sluice::kernels
