// Conversions between element types, at the speed of memory: `convert` must keep up with the disk on one
// core.
// clang-format off: this file is compiled once per SIMD target, and the order of includes makes it so
#include "kernels/device/cpu/simd_targets.h"
#define HWY_TARGET_INCLUDE "kernels/format/dense/dense_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/device/cpu/simd_inl.h"
// clang-format on
#include <bit>
#include <cmath>

#include "kernels/format/dense/dense.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::kernels::HWY_NAMESPACE {

// Plain loops vectorise for the target of this namespace; only the fp16 instructions need to be named.

template <std::uint16_t kExponentMask, class T>
bool copy_checked(const T* in, std::int64_t count, T* out) {
  std::uint16_t any_special = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint16_t bits = in[i].bits;
    any_special |= static_cast<std::uint16_t>((bits & kExponentMask) == kExponentMask ? 1 : 0);
    out[i].bits = bits;
  }
  return any_special == 0;
}
bool copy_f16(const Half* in, std::int64_t count, Half* out) { return copy_checked<0x7C00U>(in, count, out); }
bool copy_bf16(const BFloat16* in, std::int64_t count, BFloat16* out) {
  return copy_checked<0x7F80U>(in, count, out);
}

bool narrow_to_f16(const float* in, std::int64_t count, Half* out) {
  bool all_finite = true;
  std::int64_t i = 0;
#if HWY_CAP_GE256  // AVX2 and up
  const hn::Rebind<hwy::float16_t, F32> d16;
  // The largest float that rounds to a finite fp16; what is not below it, NaN included, is refused.
  const V32 limit = hn::Set(F32{}, 65519.996F);
  auto is_good = hn::Eq(limit, limit);
  for (; i + kLanes <= count; i += kLanes) {
    const V32 value = load_f32(in + i);
    is_good = hn::And(is_good, hn::Le(hn::Abs(value), limit));
    hn::StoreU(hn::DemoteTo(d16, value), d16, reinterpret_cast<hwy::float16_t*>(out + i));
  }
  all_finite = hn::AllTrue(F32{}, is_good);
#endif
  for (; i < count; ++i) {
    out[i] = to_half(in[i]);
    all_finite = all_finite && (out[i].bits & 0x7C00U) != 0x7C00U;
  }
  return all_finite;
}

bool narrow_to_bf16(const float* in, std::int64_t count, BFloat16* out) {
  std::uint32_t any_special = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    out[i] = to_bfloat16(in[i]);
    any_special |= (out[i].bits & 0x7F80U) == 0x7F80U ? 1U : 0U;
  }
  return any_special == 0;
}

template <class T>
void widen(const T* in, std::int64_t count, float* out) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store_f32(load_f32(in + i), out + i);
  for (; i < count; ++i) out[i] = to_float(in[i]);
}
void widen_f16(const Half* in, std::int64_t count, float* out) { widen(in, count, out); }
void widen_bf16(const BFloat16* in, std::int64_t count, float* out) { widen(in, count, out); }

// Round to odd (Boldo & Melquiond 2008): an inexact result gets an odd last bit, which tells the next
// rounding, to fewer bits, that the value was not a tie.
void round_f64(const double* in, std::int64_t count, float* out) {
  for (std::int64_t i = 0; i < count; ++i) {
    const auto nearest = static_cast<float>(in[i]);
    std::uint32_t bits = std::bit_cast<std::uint32_t>(nearest);
    const double back = nearest;
    if (back != in[i] && (bits & 1U) == 0 && std::isfinite(back)) {
      // One step towards the true value: away from zero if rounding came closer to zero, else the other way.
      bits += std::fabs(back) < std::fabs(in[i]) ? 1U : ~0U;
    }
    out[i] = std::bit_cast<float>(bits);
  }
}

}  // namespace sluice::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::kernels::detail {
namespace {
HWY_EXPORT(copy_f16);
HWY_EXPORT(copy_bf16);
HWY_EXPORT(narrow_to_f16);
HWY_EXPORT(narrow_to_bf16);
HWY_EXPORT(widen_f16);
HWY_EXPORT(widen_bf16);
HWY_EXPORT(round_f64);
}  // namespace
bool copy_f16(const Half* in, std::int64_t count, Half* out) {
  return HWY_DYNAMIC_DISPATCH(copy_f16)(in, count, out);
}
bool copy_bf16(const BFloat16* in, std::int64_t count, BFloat16* out) {
  return HWY_DYNAMIC_DISPATCH(copy_bf16)(in, count, out);
}
bool narrow_to_f16(const float* in, std::int64_t count, Half* out) {
  return HWY_DYNAMIC_DISPATCH(narrow_to_f16)(in, count, out);
}
bool narrow_to_bf16(const float* in, std::int64_t count, BFloat16* out) {
  return HWY_DYNAMIC_DISPATCH(narrow_to_bf16)(in, count, out);
}
void widen_f16(const Half* in, std::int64_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(widen_f16)(in, count, out);
}
void widen_bf16(const BFloat16* in, std::int64_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(widen_bf16)(in, count, out);
}
void round_f64(const double* in, std::int64_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(round_f64)(in, count, out);
}
}  // namespace sluice::kernels::detail
#endif
