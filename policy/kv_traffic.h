// Which pages a segment reads and writes: the one place that turns positions into pages. Pure.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/kv_page.h"
#include "policy/pass.h"
#include "policy/run_shape.h"

namespace sluice::policy {

/// Page ranges of one segment, in page numbers of its sequence.
struct SegmentPages {
  std::int32_t history_end = 0;    ///< pages [0, history_end) hold K and V of earlier passes
  std::int32_t touched_begin = 0;  ///< pages [touched_begin, end) get rows in this pass
  std::int32_t end = 0;
};

inline SegmentPages segment_pages(const Segment& segment) {
  return {static_cast<std::int32_t>(kv_pages(segment.first_kv)),
          static_cast<std::int32_t>(segment.first_kv / kKvPageTokens),
          static_cast<std::int32_t>(kv_pages(segment.first_kv + segment.num_tokens))};
}

/// Rows [begin, end) of `page` that the segment writes, as token numbers inside the page.
struct TokenRange {
  std::int64_t begin = 0, end = 0;
};
inline TokenRange touched_tokens(const Segment& segment, std::int32_t page) {
  const std::int64_t base = page * kKvPageTokens;
  return {std::max<std::int64_t>(segment.first_kv - base, 0),
          std::min<std::int64_t>(segment.first_kv + segment.num_tokens - base, kKvPageTokens)};
}

/// Off-GPU pages that a GPU-attended segment needs in its window.
inline std::int32_t window_pages_of(const SeatPages& seat, const Segment& segment) {
  return segment.on_cpu ? 0 : std::max(0, segment_pages(segment).end - seat.count[Tier::kGpu]);
}
/// Disk pages that a segment needs in the CPU stage.
inline std::int32_t stage_pages_of(const SeatPages& seat, const Segment& segment) {
  return std::max(0, segment_pages(segment).end - seat.begin_of(Tier::kDisk));
}

/// Adds the segment's KV bytes of one layer to `batch`.
void add_kv_traffic(const RunShape& shape, const SeatPages& seat, const Segment& segment, BatchPass& batch);

}  // namespace sluice::policy
