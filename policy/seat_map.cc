#include "policy/seat_map.h"

#include <algorithm>

namespace sluice::policy {

SeatMap make_seat_map(const Placement& placement, std::int64_t pages_per_seat) {
  const PerTier<int>& percent = placement.percents.kv_cache;
  const std::int64_t batch_pages = placement.gpu_batch_size * pages_per_seat;
  SeatMap map;
  map.seats.reserve(static_cast<std::size_t>(placement.block_size()));
  PerTier<std::int64_t> assigned{};
  for (std::int64_t batch = 0; batch < placement.num_gpu_batches; ++batch) {
    // The boundaries between the tiers after this batch, rounded to pages; a share of 0 % never gets a page.
    const std::int64_t seen = (batch + 1) * batch_pages;
    const auto boundary = [&](int share) { return (share * seen + 50) / 100; };
    const std::int64_t gpu_end = boundary(percent[Tier::kGpu]);
    const std::int64_t cpu_end = boundary(percent[Tier::kGpu] + percent[Tier::kCpu]);
    PerTier<std::int64_t> left{};
    left[Tier::kGpu] = std::clamp<std::int64_t>(gpu_end - assigned[Tier::kGpu], 0, batch_pages);
    left[Tier::kCpu] =
        std::clamp<std::int64_t>(cpu_end - assigned[Tier::kGpu] - assigned[Tier::kCpu] - left[Tier::kGpu], 0,
                                 batch_pages - left[Tier::kGpu]);
    left[Tier::kDisk] = batch_pages - left[Tier::kGpu] - left[Tier::kCpu];
    for (Tier tier : kTiers) assigned[tier] += left[tier];
    for (std::int64_t i = 0; i < placement.gpu_batch_size; ++i) {
      SeatPages seat;
      std::int64_t needed = pages_per_seat;
      for (Tier tier : kTiers) {
        const std::int64_t taken = std::min(needed, left[tier]);
        seat.count[tier] = static_cast<std::int32_t>(taken);
        seat.first_slot[tier] = static_cast<std::int32_t>(map.pages_per_layer[tier]);
        map.pages_per_layer[tier] += taken;
        left[tier] -= taken;
        needed -= taken;
      }
      map.seats.push_back(seat);
    }
  }
  return map;
}

std::vector<Tier> place_activations(const PerTier<int>& percent, std::int64_t num_gpu_batches) {
  std::vector<Tier> result;
  PerTier<std::int64_t> assigned{};
  for (std::int64_t batch = 0; batch < num_gpu_batches; ++batch) {
    Tier chosen = Tier::kGpu;
    const auto behind = [&](Tier tier) { return percent[tier] * (batch + 1) - 100 * assigned[tier]; };
    for (Tier tier : kTiers) {
      if (behind(tier) > behind(chosen)) chosen = tier;
    }
    ++assigned[chosen];
    result.push_back(chosen);
  }
  return result;
}

}  // namespace sluice::policy
