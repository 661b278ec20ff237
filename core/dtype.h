// Element types of checkpoints, stored weights, activations and KV, and the 16-bit storage types.
// Pure functions, thread-safe.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace sluice {

enum class DType : std::uint8_t { kF32, kF16, kBF16, kF64, kI8, kU8, kI16, kI32, kI64, kBool };

constexpr std::int64_t dtype_bytes(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
    case DType::kI16:
      return 2;
    case DType::kI8:
    case DType::kU8:
    case DType::kBool:
      return 1;
  }
  return 0;
}

/// "f32", "f16", "bf16", ...: the spelling in manifests and messages.
std::string_view dtype_name(DType dtype);
/// The inverse of dtype_name; empty if unknown.
std::optional<DType> parse_dtype(std::string_view name);

/// IEEE binary16 as stored. Arithmetic happens in float.
struct Half {
  std::uint16_t bits = 0;
  friend bool operator==(Half, Half) = default;
};
/// bfloat16 as stored: the upper half of a float.
struct BFloat16 {
  std::uint16_t bits = 0;
  friend bool operator==(BFloat16, BFloat16) = default;
};
static_assert(sizeof(Half) == 2 && sizeof(BFloat16) == 2);

constexpr float to_float(BFloat16 x) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}
/// Rounds to nearest even; NaN stays NaN.
constexpr BFloat16 to_bfloat16(float x) {
  std::uint32_t u = std::bit_cast<std::uint32_t>(x);
  if ((u & 0x7FFFFFFFU) > 0x7F800000U) return {static_cast<std::uint16_t>((u >> 16) | 0x40U)};
  u += 0x7FFFU + ((u >> 16) & 1U);
  return {static_cast<std::uint16_t>(u >> 16)};
}

constexpr float to_float(Half x) {
  const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x8000U) << 16;
  const std::uint32_t exponent = (x.bits >> 10) & 0x1FU;
  std::uint32_t mantissa = x.bits & 0x3FFU;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000U | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112U) << 23) | (mantissa << 13));
  if (mantissa == 0) return std::bit_cast<float>(sign);
  // Subnormal: value = mantissa * 2^-24, exact in float.
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
  return sign != 0 ? -magnitude : magnitude;
}

/// Rounds to nearest even; values beyond 65504 become infinity; NaN stays NaN.
constexpr Half to_half(float x) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(x);
  const auto sign = static_cast<std::uint16_t>((u >> 16) & 0x8000U);
  const std::uint32_t magnitude = u & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) return {static_cast<std::uint16_t>(sign | 0x7E00U)};
  if (magnitude >= 0x477FF000U) return {static_cast<std::uint16_t>(sign | 0x7C00U)};
  if (magnitude >= 0x38800000U) {  // normal
    const std::uint32_t rebased = magnitude - 0x38000000U;
    const std::uint32_t rounded = rebased + 0xFFFU + ((rebased >> 13) & 1U);
    return {static_cast<std::uint16_t>(sign | (rounded >> 13))};
  }
  // Subnormal: adding 0.5 puts the 10 wanted bits, rounded to even, at the end of the mantissa.
  const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
  return {static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3F000000U))};
}

}  // namespace sluice
