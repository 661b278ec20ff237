// The three places where bytes live.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace sluice {

enum class Tier : std::uint8_t { kGpu, kCpu, kDisk };
inline constexpr std::array kTiers = {Tier::kGpu, Tier::kCpu, Tier::kDisk};

constexpr std::string_view tier_name(Tier tier) {
  switch (tier) {
    case Tier::kGpu:
      return "gpu";
    case Tier::kCpu:
      return "cpu";
    case Tier::kDisk:
      return "disk";
  }
  return "?";
}

/// One value per tier, indexed by Tier.
template <class T>
struct PerTier {
  std::array<T, 3> values{};
  constexpr T& operator[](Tier tier) { return values[static_cast<std::size_t>(tier)]; }
  constexpr const T& operator[](Tier tier) const { return values[static_cast<std::size_t>(tier)]; }
  friend bool operator==(const PerTier&, const PerTier&) = default;
};

}  // namespace sluice
