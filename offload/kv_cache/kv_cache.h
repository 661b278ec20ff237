// The paged KV of every seat on its tiers, the GPU windows through which off-GPU pages are attended there,
// and the CPU stage of disk pages. Addresses are fixed after construction; the transfers of a step touch only
// the memory that the schedule gives to that step.
//
// Disk pages are read and written whole, because a page is the smallest aligned run; CPU pages get just the
// new rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops/attention.h"
#include "offload/io/block_io.h"
#include "offload/memory/tier_memory.h"
#include "policy/kv_traffic.h"
#include "policy/pass.h"
#include "policy/run_shape.h"

namespace sluice::offload {

class KvCache {
 public:
  /// Both outlive the cache.
  KvCache(const policy::RunShape& shape, const TierMemory& memory);

  /// Opens the file of the disk pages on both disk lanes; nothing to do if there are none.
  void open_file(BlockIo& disk_read, BlockIo& disk_write);

  /// The addresses of a segment's pages in one layer, for the lane that attends it; appends to `out` and
  /// returns how many. `slot` is the window (GPU) or the stage (CPU).
  std::int64_t append_pages(const policy::Segment& segment, std::int64_t unit, std::int64_t slot,
                            std::vector<const std::byte*>& out) const;

  /// Disk lanes: the requests that bring the batch's history pages into `stage`, or write its touched pages
  /// back.
  void read_requests(const policy::Pass& pass, std::int64_t unit, std::int64_t gpu_batch, std::int64_t stage,
                     std::vector<IoRequest>& out) const;
  void write_requests(const policy::Pass& pass, std::int64_t unit, std::int64_t gpu_batch, std::int64_t stage,
                      std::vector<IoRequest>& out) const;

  /// h2d: history pages of GPU-attended segments from CPU memory and `stage` into `window`. Returns bytes
  /// moved.
  std::int64_t load(const policy::Pass& pass, std::int64_t unit, std::int64_t gpu_batch, std::int64_t window,
                    std::int64_t stage, kernels::Stream& stream) const;
  /// d2h: the new rows of GPU-attended segments from `window` into CPU pages, and touched disk pages into
  /// `stage`. Returns bytes moved.
  std::int64_t store(const policy::Pass& pass, std::int64_t unit, std::int64_t gpu_batch, std::int64_t window,
                     std::int64_t stage, kernels::Stream& stream) const;

  std::span<std::byte> window(std::int64_t index) const;
  std::span<std::byte> stage(std::int64_t index) const;

 private:
  template <class Visit>
  void for_segments(const policy::Pass& pass, std::int64_t gpu_batch, Visit visit) const;
  const policy::SeatPages& seat_of(const policy::Segment& segment) const;
  /// Number of a page among all pages of its tier, over all layers.
  std::int64_t home_slot(const policy::SeatPages& seat, std::int64_t unit, std::int32_t page) const;
  std::byte* home(const policy::SeatPages& seat, std::int64_t unit, std::int32_t page) const;
  std::byte* in_window(const policy::Segment& segment, const policy::SeatPages& seat, std::int64_t window,
                       std::int32_t page) const;
  std::byte* in_stage(const policy::Segment& segment, const policy::SeatPages& seat, std::int64_t stage,
                      std::int32_t page) const;
  std::int64_t copy_rows(std::byte* to, const std::byte* from, policy::TokenRange tokens,
                         kernels::Stream& stream) const;

  const policy::RunShape& shape_;
  const TierMemory& memory_;
  const std::int64_t stride_;
  FileId read_file_ = -1, write_file_ = -1;  // numbers on the two disk lanes
};

}  // namespace sluice::offload
