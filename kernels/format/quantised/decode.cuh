// Codes to 16-bit values on the CUDA device, two in a register, with the bits of FORMAT.md. For *.cu files
// only.
//
// A code is exact in the 16-bit type, and so is its distance from zero's: bits behind the exponent of a power
// of two, from which that power is taken away. Then one operation of the 16-bit type, rounded once, has the
// bits of the one in fp32 that is rounded to it: a product is exact in fp32. A sum may not be, and is rounded
// twice by the definition: that shows only where the minimum is tiny beside the scale (decode_way).
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/ops/elements.cuh"

namespace sluice::kernels::fused {

__device__ inline std::uint32_t bits_of_pair(__half2 x) { return *reinterpret_cast<std::uint32_t*>(&x); }
__device__ inline std::uint32_t bits_of_pair(__nv_bfloat162 x) {
  return *reinterpret_cast<std::uint32_t*>(&x);
}

template <class T>
struct PairOf;
template <>
struct PairOf<__half> {
  using Type = __half2;
};
template <>
struct PairOf<__nv_bfloat16> {
  using Type = __nv_bfloat162;
};
template <class T>
using Pair = typename PairOf<T>::Type;

template <class T>
__device__ Pair<T> as_pair(std::uint32_t bits) {
  return *reinterpret_cast<Pair<T>*>(&bits);
}

/// (a & b) | c
__device__ inline std::uint32_t and_or(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  std::uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

/// Parameters of a group as they are stored: the scale in the low half, the minimum in the high one.
template <class T>
struct GroupPair {
  Pair<T> scale, minimum;
  __device__ explicit GroupPair(std::uint32_t stored) {
    scale = as_pair<T>(__byte_perm(stored, 0, 0x1010));
    minimum = as_pair<T>(__byte_perm(stored, 0, 0x3232));
  }
};

/// How the codes of a group become values; what serves one group serves all those of a lower way.
enum class DecodeWay : std::uint32_t {
  kScaledNibbles,  ///< fp16: u * 2^-20, a subnormal, times scale * 2^20, which fits if the scale is below
                   ///< 2^-4
  kDifference,     ///< the code's distance from zero's, times the scale
  kDefinition,     ///< in fp32
};

/// The least way for a group of 4-bit codes. The definition's two roundings of u * scale + minimum may differ
/// from one: an enumeration of all codes, mantissas and exponents finds that only where the minimum is not
/// zero, and its exponent 10 (of bf16: 20) below the scale's or lower. `stored`: the scale, and in the high
/// half the minimum.
template <class T>
__device__ DecodeWay decode_way(std::uint32_t stored) {
  constexpr bool kF16 = ElementType<T>::kDType == DType::kF16;
  constexpr int kMantissa = kF16 ? 10 : 7;
  constexpr int kBinades = kF16 ? 9 : 18;
  const int scale = static_cast<int>(stored & 0xFFFFU);
  const int magnitude = static_cast<int>(stored >> 16 & 0x7FFFU);
  const int bound =
      max(1 << kMantissa, scale - (kBinades << kMantissa));  // exponents of subnormals are no exponents
  if (magnitude != 0 && magnitude < bound) return DecodeWay::kDefinition;
  constexpr int kSixteenth = 0x2C00;
  return kF16 && scale < kSixteenth ? DecodeWay::kScaledNibbles : DecodeWay::kDifference;
}

/// A stored group's parameters for kScaledNibbles; without minimum that of -8 scales, which is exact.
template <bool kMinimum>
__device__ std::uint32_t scale_nibbles(std::uint32_t stored) {
  const __half scale = __ushort_as_half(static_cast<unsigned short>(stored & 0xFFFFU));
  const __half thousand = __ushort_as_half(0x6400);  // 1024
  const __half scaled = __hmul(__hmul(scale, thousand), thousand);
  const __half minimum = kMinimum ? __ushort_as_half(static_cast<unsigned short>(stored >> 16))
                                  : __hmul(scale, __ushort_as_half(0xC800));  // -8
  return bits_of_pair(__halves2half2(scaled, minimum));
}

/// Eight codes of 4 bits, c0 in the lowest, to the values of (c0, c4), (c1, c5), (c2, c6), (c3, c7): of two
/// words of a chunk neighbouring columns, eight apart from pair to pair.
__device__ inline void decode_scaled_nibbles(std::uint32_t codes, __half2 scale, __half2 minimum,
                                             std::uint32_t (&out)[4]) {
  constexpr std::uint32_t kMask = 0x00F000F0U;
  out[0] = bits_of_pair(__hfma2(as_pair<__half>(codes << 4 & kMask), scale, minimum));
  out[1] = bits_of_pair(__hfma2(as_pair<__half>(codes & kMask), scale, minimum));
  out[2] = bits_of_pair(__hfma2(as_pair<__half>(codes >> 4 & kMask), scale, minimum));
  out[3] = bits_of_pair(__hfma2(as_pair<__half>(codes >> 8 & kMask), scale, minimum));
}

/// The definition itself: round16(fma(code, scale, minimum)).
template <class T>
__device__ std::uint32_t decode_twice_rounded(std::uint32_t low_code, std::uint32_t high_code,
                                              const GroupPair<T>& group) {
  const float scale = widen(group.scale.x);
  const float minimum = widen(group.minimum.x);
  Pair<T> pair;
  pair.x = narrow<T>(fmaf(static_cast<float>(low_code), scale, minimum));
  pair.y = narrow<T>(fmaf(static_cast<float>(high_code), scale, minimum));
  return bits_of_pair(pair);
}

/// Eight codes of 4 bits, c0 in the lowest, to the pairs (c0, c4), (c1, c5), (c2, c6), (c3, c7), less
/// `kZero`.
template <class T, int kZero>
__device__ void nibbles_to_pairs(std::uint32_t codes, Pair<T> (&pairs)[4]) {
  if constexpr (ElementType<T>::kDType == DType::kF16) {
    // 1024 + u, and 1024 + 16 u a nibble higher.
    constexpr std::uint32_t kMagic = 0x64006400U;
    const __half2 low = __float2half2_rn(1024.0F + kZero);
    const __half2 sixteenth = __float2half2_rn(0.0625F);
    const __half2 high = __float2half2_rn(-64.0F - kZero);
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      pairs[i] = __hsub2(as_pair<T>(and_or(codes, 0x000F000FU, kMagic)), low);
      pairs[i + 1] = __hfma2(as_pair<T>(and_or(codes, 0x00F000F0U, kMagic)), sixteenth, high);
      codes >>= 8;
    }
  } else {
    // 128 + u: 7 bits of mantissa do not hold a higher nibble.
    constexpr std::uint32_t kMagic = 0x43004300U;
    const __nv_bfloat162 zero = __float2bfloat162_rn(128.0F + kZero);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      pairs[i] = __hsub2(as_pair<T>(and_or(codes, 0x000F000FU, kMagic)), zero);
      codes >>= 4;
    }
  }
}

/// Four codes of 8 bits to the pairs (c0, c2), (c1, c3), less 128: neighbouring columns, as above.
template <class T>
__device__ void bytes_to_pairs(std::uint32_t codes, Pair<T> (&pairs)[2]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const unsigned select = i == 0 ? 0x4240U : 0x4341U;
    if constexpr (ElementType<T>::kDType == DType::kF16) {
      pairs[i] = __hsub2(as_pair<T>(__byte_perm(codes, 0x64646464U, select)), __float2half2_rn(1152.0F));
    } else {
      // 128 + the lower 7 bits; less 128 if the highest bit is set, and less 256 otherwise.
      const std::uint32_t two = __byte_perm(codes, 0, select);
      const std::uint32_t less = and_or(~two, 0x00800080U, 0x43004300U);
      pairs[i] = __hsub2(as_pair<T>(and_or(two, 0x007F007FU, 0x43004300U)), as_pair<T>(less));
    }
  }
}

}  // namespace sluice::kernels::fused
