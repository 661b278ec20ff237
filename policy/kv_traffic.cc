#include "policy/kv_traffic.h"

namespace sluice::policy {

void add_kv_traffic(const RunShape& shape, const SeatPages& seat, const Segment& segment, BatchPass& batch) {
  const SegmentPages pages = segment_pages(segment);
  const std::int64_t page_bytes = shape.kv.page_bytes();
  const std::int64_t stride = shape.kv.page_stride();
  const std::int64_t loaded = batch.load_kv_bytes;
  const std::int64_t stored = batch.store_kv_bytes;
  for (std::int32_t page = seat.count[Tier::kGpu]; page < pages.end; ++page) {
    const bool on_disk = seat.tier_of(page) == Tier::kDisk;
    if (page < pages.history_end) {
      if (on_disk) batch.read_kv_bytes += stride;
      if (!segment.on_cpu) batch.load_kv_bytes += page_bytes;
    }
    if (page >= pages.touched_begin) {
      const TokenRange tokens = touched_tokens(segment, page);
      if (on_disk) batch.write_kv_bytes += stride;
      if (!segment.on_cpu) {
        batch.store_kv_bytes += on_disk ? page_bytes : (tokens.end - tokens.begin) * shape.kv.token_bytes();
      }
    }
  }
  batch.load_kv_segments += batch.load_kv_bytes > loaded ? 1 : 0;
  batch.store_kv_segments += batch.store_kv_bytes > stored ? 1 : 0;
}

}  // namespace sluice::policy
