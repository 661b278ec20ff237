// Where the KV pages of each seat of the block live, and on which tier each GPU batch's residual stream
// rests. Pure, thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/tier.h"
#include "policy/placement.h"

namespace sluice::policy {

/// The pages of one seat, in page order: first those on the GPU, then CPU memory, then disk. The same in all
/// layers.
struct SeatPages {
  PerTier<std::int32_t> count{};  ///< pages on each tier
  PerTier<std::int32_t>
      first_slot{};  ///< index of the seat's first page among all pages of the tier (per layer)

  std::int32_t total() const { return count[Tier::kGpu] + count[Tier::kCpu] + count[Tier::kDisk]; }
  std::int32_t off_gpu() const { return count[Tier::kCpu] + count[Tier::kDisk]; }
  /// Tier of page `page`.
  Tier tier_of(std::int32_t page) const {
    if (page < count[Tier::kGpu]) return Tier::kGpu;
    return page < count[Tier::kGpu] + count[Tier::kCpu] ? Tier::kCpu : Tier::kDisk;
  }
  /// Number of pages of the seat before those on `tier`.
  std::int32_t begin_of(Tier tier) const {
    if (tier == Tier::kGpu) return 0;
    return tier == Tier::kCpu ? count[Tier::kGpu] : count[Tier::kGpu] + count[Tier::kCpu];
  }
};

struct SeatMap {
  std::vector<SeatPages> seats;             ///< block_size; seat s belongs to GPU batch s / gpu_batch_size
  PerTier<std::int64_t> pages_per_layer{};  ///< reserved pages of each tier, per layer
};

/// Pages of each seat of a block, by seat number. With a known demand the seats are as long as the requests
/// that sit in them at one time: seat i of B, by length, has the pages of the (i + 1) / B quantile of the
/// demand, so the longest takes any request; without, or in a block of one seat, all take the longest. Every
/// GPU batch gets long and short ones.
std::vector<std::int64_t> seat_pages(const Placement& placement, const Workload& workload);

/// Shares are of reserved pages, even over the GPU batches (the rounding error is carried from one to the
/// next); at most one seat per tier boundary and GPU batch is split, at a page boundary. `pages` are those of
/// each seat.
SeatMap make_seat_map(const Placement& placement, std::span<const std::int64_t> pages);

/// Tier of each GPU batch's residual stream between layers, error carried.
std::vector<Tier> place_activations(const PerTier<int>& percent, std::int64_t num_gpu_batches);

}  // namespace sluice::policy
