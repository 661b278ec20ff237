#include "policy/seat_map.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/kv_page.h"

namespace sluice::policy {

std::vector<std::int64_t> seat_pages(const Placement& placement, const Workload& workload) {
  const std::int64_t most = kv_pages(workload.seat_tokens());
  std::vector<std::int64_t> pages(static_cast<std::size_t>(placement.block_size()), most);
  const std::int64_t total =
      std::accumulate(workload.seat_demand.begin(), workload.seat_demand.end(), std::int64_t{0});
  if (total == 0) return pages;
  std::int64_t below = 0;  // demand for at most `length` pages
  std::int64_t length = 0;
  for (std::int64_t i = 0; i + 1 < placement.block_size(); ++i) {
    while (below * placement.block_size() < (i + 1) * total) {
      below += workload.seat_demand[static_cast<std::size_t>(length++)];
    }
    const std::int64_t seat =
        i % placement.num_gpu_batches * placement.gpu_batch_size + i / placement.num_gpu_batches;
    pages[static_cast<std::size_t>(seat)] = std::min(length, most);
  }
  return pages;
}

SeatMap make_seat_map(const Placement& placement, std::span<const std::int64_t> pages) {
  SLUICE_ASSERT(static_cast<std::int64_t>(pages.size()) == placement.block_size());
  const PerTier<int>& percent = placement.percents.kv_cache;
  SeatMap map;
  map.seats.reserve(static_cast<std::size_t>(placement.block_size()));
  PerTier<std::int64_t> assigned{};
  std::int64_t seen = 0;
  for (std::int64_t batch = 0; batch < placement.num_gpu_batches; ++batch) {
    // The boundaries between the tiers after this batch, rounded to pages; a share of 0 % never gets a page.
    const auto of_batch = pages.subspan(static_cast<std::size_t>(batch * placement.gpu_batch_size),
                                        static_cast<std::size_t>(placement.gpu_batch_size));
    const std::int64_t batch_pages = std::accumulate(of_batch.begin(), of_batch.end(), std::int64_t{0});
    seen += batch_pages;
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
      std::int64_t needed = of_batch[static_cast<std::size_t>(i)];
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
