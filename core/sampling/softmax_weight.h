// Weights of sampling: exp((logit - largest) / temperature) as an integer, so that every sum of them is exact
// whatever its order, and every device draws the same token from the same logits. Pure functions,
// thread-safe. They are constexpr, by which nvcc also compiles them for the device. Bit equality needs plain
// IEEE arithmetic: no contraction to fused multiply-adds (-ffp-contract=off, --fmad=false).
#pragma once

#include <bit>
#include <cstdint>

namespace sluice {

/// The weight of the largest logit. A token's weight is off by at most half a unit, 2^-45 of the largest, so
/// tokens that much less likely have none. Sums of kMaxSampledTokens weights fit 63 bits.
inline constexpr std::uint64_t kLargestWeight = std::uint64_t{1} << 44;
inline constexpr std::int64_t kMaxSampledTokens = std::int64_t{1} << 19;

namespace detail {

/// exp(x) for x in [-31.5, 0], to a few units in the last place: exp(k ln 2 + r) = 2^k exp(r), |r| <= ln(2) /
/// 2, and exp(r) by its Taylor polynomial, whose first missing term is below 2^-47.
constexpr double exp_of_non_positive(double x) {
  const int k = static_cast<int>(x * 0x1.71547652b82fep+0 - 0.5);  // towards zero: the nearest
  const double r = (x - k * 0x1.62e42feep-1) - k * 0x1.a39ef35793c76p-33;
  double p = 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  return p * std::bit_cast<double>(static_cast<std::uint64_t>(1023 + k) << 52);
}

}  // namespace detail

struct SoftmaxWeight {
  double largest = 0;
  double inverse_temperature = 1;

  /// 0 for NaN and -infinity; several +infinity weigh alike, and anything else then nothing.
  constexpr std::uint64_t operator()(float logit) const {
    const double x = logit;
    if (x == largest) return kLargestWeight;  // inf - inf would be NaN
    const double scaled = (x - largest) * inverse_temperature;
    if (!(scaled > -31.5)) return 0;   // 2^-45.4
    constexpr double kRounding = 0.5;  // all of it is positive, and lround is no constant expression
    const double weight = detail::exp_of_non_positive(scaled) * static_cast<double>(kLargestWeight);
    return static_cast<std::uint64_t>(weight + kRounding);
  }
};

/// The mass that the kept tokens must reach to hold the share `top_p` < 1 of `total`.
constexpr std::uint64_t top_p_target(std::uint64_t total, float top_p) {
  const double exact = static_cast<double>(total) * static_cast<double>(top_p);
  const auto whole = static_cast<std::uint64_t>(exact);
  return static_cast<double>(whole) < exact ? whole + 1 : whole;
}

/// The token is taken in whose part the mass, summed by rising id, first exceeds this. Below `total` for
/// every draw below 1.
constexpr std::uint64_t draw_target(std::uint64_t total, float draw) {
  return static_cast<std::uint64_t>(static_cast<double>(total) * static_cast<double>(draw));
}

}  // namespace sluice
