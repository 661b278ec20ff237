#include "kernels/format/quantised/scale.h"

#include <cmath>

namespace sluice::kernels {
namespace {

/// The largest code's value, before it is rounded to the 16-bit type.
float top_value(std::uint16_t scale, float minimum, int limit, DType dtype) {
  return std::fma(static_cast<float>(limit), value_of(scale, dtype), minimum);
}

}  // namespace

std::uint16_t symmetric_scale(float max_abs, int limit, DType dtype) {
  if (max_abs == 0.0F) return 0;
  const auto top = static_cast<float>(limit);
  std::uint16_t scale = bits_of(max_abs / top, dtype);
  // Subnormal scales are coarse: rounded down they may not reach the largest value, or be zero.
  if (max_abs > (top + 0.5F) * value_of(scale, dtype)) ++scale;
  // Rounded up they may carry the largest value beyond the type's range.
  if (why_bad_scale(scale, 0.0F, limit, dtype) != nullptr) --scale;
  return scale;
}

std::uint16_t asymmetric_scale(float minimum, float maximum, DType dtype) {
  if (minimum == maximum) return 0;
  const double low = minimum;
  const double high = maximum;  // the range of bf16 overflows fp32
  std::uint16_t scale = bits_of(static_cast<float>((high - low) / kAsymmetricLimit), dtype);
  if (high > low + (kAsymmetricLimit + 0.5) * static_cast<double>(value_of(scale, dtype))) ++scale;
  if (why_bad_scale(scale, minimum, kAsymmetricLimit, dtype) != nullptr) --scale;
  return scale;
}

const char* why_bad_scale(std::uint16_t scale, float minimum, int limit, DType dtype) {
  if (!is_finite_value(scale, dtype)) return "is not finite";
  if ((scale & 0x8000U) != 0) return "is negative";
  const float top = top_value(scale, minimum, limit, dtype);
  if (!is_finite_value(bits_of(top, dtype), dtype)) return "decodes to values beyond its type's range";
  return nullptr;
}

}  // namespace sluice::kernels
