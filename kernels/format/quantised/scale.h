// How the scale of a group of quantised values is chosen, and the 16-bit values that it is made of
// (kernels/format/quantised/FORMAT.md). Pure functions, thread-safe.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace sluice::kernels {

/// A value of f16 or bf16 from its bits, and the bits of the nearest value (ties to even).
inline float value_of(std::uint16_t bits, DType dtype) {
  return dtype == DType::kF16 ? to_float(Half{bits}) : to_float(BFloat16{bits});
}
inline std::uint16_t bits_of(float value, DType dtype) {
  return dtype == DType::kF16 ? to_half(value).bits : to_bfloat16(value).bits;
}
inline bool is_finite_value(std::uint16_t bits, DType dtype) {
  const std::uint16_t exponent = dtype == DType::kF16 ? 0x7C00U : 0x7F80U;
  return (bits & exponent) != exponent;
}

/// Largest |q| of a symmetric code of so many bits, and what is added to q to store it: the code of zero.
constexpr int symmetric_limit(int bits) { return bits == 8 ? 127 : 7; }
constexpr int symmetric_bias(int bits) { return bits == 8 ? 128 : 8; }
/// Largest u of a code with a minimum.
inline constexpr int kAsymmetricLimit = 15;

/// Bits of the scale for values of magnitude up to `max_abs`; 0 if that is 0.
std::uint16_t symmetric_scale(float max_abs, int limit, DType dtype);
/// Bits of the scale for values from `minimum` to `maximum`; 0 if they are equal.
std::uint16_t asymmetric_scale(float minimum, float maximum, DType dtype);

/// What is wrong with a stored scale whose codes reach `limit` above `minimum` (0 if symmetric), or nullptr:
/// with a good one every code decodes to a finite value.
const char* why_bad_scale(std::uint16_t scale, float minimum, int limit, DType dtype);

}  // namespace sluice::kernels
