// Vector helpers of the CPU kernels, compiled once per SIMD target inside that target's namespace. For
// *_cpu.cc files only, included after hwy/foreach_target.h. (Highway's re-inclusion needs the #if below.)
//
// Everything here treats one element, or one dot product, independently of its neighbours, so results do not
// depend on how work is tiled.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/dtype.h"
#include "hwy/highway.h"

#if defined(SLUICE_KERNELS_DEVICE_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SLUICE_KERNELS_DEVICE_CPU_SIMD_INL_H_
#undef SLUICE_KERNELS_DEVICE_CPU_SIMD_INL_H_
#else
#define SLUICE_KERNELS_DEVICE_CPU_SIMD_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace sluice::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using V32 = hn::Vec<F32>;
inline constexpr std::int64_t kLanes = static_cast<std::int64_t>(hn::MaxLanes(F32{}));
/// What register tiles are chosen by.
inline constexpr bool kHas32Registers = HWY_CAP_GE512 || HWY_ARCH_ARM_A64;

// --- loads that widen to fp32 ---------------------------------------------------------------------------

HWY_INLINE V32 load_f32(const float* p) { return hn::LoadU(F32{}, p); }

HWY_INLINE V32 load_f32(const BFloat16* p) {
  const hn::Rebind<std::uint16_t, F32> d16;
  const hn::RebindToUnsigned<F32> d32;
  const auto bits = hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const std::uint16_t*>(p)));
  return hn::BitCast(F32{}, hn::ShiftLeft<16>(bits));
}

HWY_INLINE V32 load_f32(const Half* p) {
#if HWY_CAP_GE256  // AVX2 and up: one instruction
  const hn::Rebind<hwy::float16_t, F32> d16;
  return hn::PromoteTo(F32{}, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(p)));
#else
  // The exponent and mantissa moved to their fp32 places are the value times 2^-112, exactly, subnormals
  // included; infinity and NaN come out as 65536 and more and get the top exponent back.
  const hn::Rebind<std::uint16_t, F32> d16;
  const hn::RebindToUnsigned<F32> d32;
  const auto bits = hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const std::uint16_t*>(p)));
  const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(d32, 0x7FFFU)));
  const auto value = hn::Mul(hn::BitCast(F32{}, magnitude), hn::Set(F32{}, 0x1p112F));
  const auto special = hn::IfThenElseZero(hn::Ge(value, hn::Set(F32{}, 65536.0F)),
                                          hn::BitCast(F32{}, hn::Set(d32, 0x7F800000U)));
  const auto sign = hn::BitCast(F32{}, hn::ShiftLeft<16>(hn::And(bits, hn::Set(d32, 0x8000U))));
  return hn::Or(hn::Or(value, special), sign);
#endif
}

/// The first `n` < kLanes elements, zeros behind. Never reads beyond them.
template <class T>
HWY_INLINE V32 load_f32_first(const T* p, std::int64_t n) {
  T padded[static_cast<std::size_t>(kLanes)] = {};
  std::memcpy(padded, p, static_cast<std::size_t>(n) * sizeof(T));
  return load_f32(padded);
}

HWY_INLINE void store_f32(V32 v, float* p) { hn::StoreU(v, F32{}, p); }

HWY_INLINE void store_f32_first(V32 v, float* p, std::int64_t n) {
  float all[static_cast<std::size_t>(kLanes)];
  hn::StoreU(v, F32{}, all);
  std::memcpy(p, all, static_cast<std::size_t>(n) * sizeof(float));
}

// --- whole rows -------------------------------------------------------------------------------------------

HWY_INLINE void store_row(const float* x, std::int64_t n, float* to) {
  std::memcpy(to, x, static_cast<std::size_t>(n) * sizeof(float));
}

/// Rounds like core's to_half(), to nearest even, on every target.
HWY_INLINE void store_row(const float* x, std::int64_t n, Half* to) {
  std::int64_t i = 0;
#if HWY_CAP_GE256  // Highway's emulation on older targets truncates instead
  const hn::Rebind<hwy::float16_t, F32> d16;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(hn::DemoteTo(d16, load_f32(x + i)), d16, reinterpret_cast<hwy::float16_t*>(to + i));
  }
#endif
  for (; i < n; ++i) to[i] = to_half(x[i]);
}

HWY_INLINE void store_row(const float* x, std::int64_t n, BFloat16* to) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = to_bfloat16(x[i]);
}

/// Calls body(pointer to the elements of `data` as their type).
template <class Byte, class Body>
HWY_INLINE void with_elements(Byte* data, DType dtype, const Body& body) {
  const auto as = [data](auto tag) {
    using T = std::conditional_t<std::is_const_v<Byte>, const decltype(tag), decltype(tag)>;
    return reinterpret_cast<T*>(data);
  };
  switch (dtype) {
    case DType::kF16:
      return body(as(Half{}));
    case DType::kBF16:
      return body(as(BFloat16{}));
    default:
      return body(as(float{}));
  }
}

// --- the final tree of a dot product ----------------------------------------------------------------------

/// Sums each of the kLanes accumulators v[0..kLanes) over its lanes; lane i of the result is the sum of v[i].
/// The tree adds neighbours: (l0 + l1) + (l2 + l3) and so on. Overwrites `v`. This is the only way in which
/// kernels reduce a dot product.
HWY_INLINE V32 reduce_lanes(V32* v) {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  // The generic loop's additions, with shuffles inside 128-bit blocks and of whole blocks, which cost less
  // than permutations over the vector.
#pragma GCC unroll 4
  for (int n = 8; n > 2; n /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) {
      const __m512 a = v[2 * i].raw;
      const __m512 b = v[2 * i + 1].raw;
      v[i] = V32{_mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xDD))};
    }
  }
#pragma GCC unroll 2
  for (int n = 2; n > 0; n /= 2) {
#pragma GCC unroll 2
    for (int i = 0; i < n; ++i) {
      const __m512 a = v[2 * i].raw;
      const __m512 b = v[2 * i + 1].raw;
      v[i] = V32{_mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD))};
    }
  }
#elif HWY_TARGET != HWY_SCALAR
  const F32 d;
#pragma GCC unroll 4
  for (std::int64_t n = kLanes; n > 1; n /= 2) {
#pragma GCC unroll 8
    for (std::int64_t i = 0; i < n / 2; ++i) {
      v[i] = hn::Add(hn::ConcatEven(d, v[2 * i + 1], v[2 * i]), hn::ConcatOdd(d, v[2 * i + 1], v[2 * i]));
    }
  }
#endif
  return v[0];
}

/// The same of kLanes accumulators in memory, kLanes aligned floats each.
HWY_INLINE V32 reduce_lanes(const float* accumulators) {
  V32 v[static_cast<std::size_t>(kLanes)];
#pragma GCC unroll 16
  for (std::int64_t i = 0; i < kLanes; ++i) v[i] = hn::Load(F32{}, accumulators + i * kLanes);
  return reduce_lanes(v);
}

HWY_INLINE float sum_of_lanes(V32 v) { return hn::GetLane(hn::SumOfLanes(F32{}, v)); }
HWY_INLINE float max_of_lanes(V32 v) { return hn::GetLane(hn::MaxOfLanes(F32{}, v)); }

}  // namespace sluice::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
