#include "policy/place_weights.h"

namespace sluice::policy {
namespace {

Tier fastest_with_share(const PerTier<int>& percent) {
  for (Tier tier : kTiers) {
    if (percent[tier] > 0) return tier;
  }
  return Tier::kGpu;
}

}  // namespace

std::vector<Tier> place_weights(std::span<const TensorSize> tensors, const PerTier<int>& percent) {
  const Tier vector_tier = fastest_with_share(percent);
  std::vector<Tier> result;
  result.reserve(tensors.size());
  PerTier<std::int64_t> assigned{};
  std::int64_t seen = 0;
  // 100 x (asked - assigned) bytes: integers, so that equal inputs give equal placements everywhere.
  const auto behind = [&](Tier tier) { return percent[tier] * seen - 100 * assigned[tier]; };
  for (const TensorSize& tensor : tensors) {
    seen += tensor.bytes;
    Tier chosen = vector_tier;
    if (!tensor.is_vector) {
      for (Tier tier : kTiers) {
        if (behind(tier) > behind(chosen)) chosen = tier;
      }
    }
    assigned[chosen] += tensor.bytes;
    result.push_back(chosen);
  }
  return result;
}

}  // namespace sluice::policy
