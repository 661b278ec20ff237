#include "offload/kv_cache/kv_cache.h"

#include "core/error.h"

namespace sluice::offload {

using policy::Pass;
using policy::Purpose;
using policy::SeatPages;
using policy::Segment;
using policy::SegmentPages;

KvCache::KvCache(const policy::RunShape& shape, const TierMemory& memory)
    : shape_(shape), memory_(memory), stride_(shape.kv.page_stride()) {}

void KvCache::open_file(BlockIo& disk_read, BlockIo& disk_write) {
  const ScratchFile* file = memory_.file(Purpose::kKv);
  if (file == nullptr) return;
  write_file_ = disk_write.open(file->path(), FileMode::kReadWriteCreate);
  read_file_ = disk_read.open(file->path(), FileMode::kRead);
}

// ---- Addresses.

const SeatPages& KvCache::seat_of(const Segment& segment) const {
  return shape_.seats.seats[static_cast<std::size_t>(segment.seat)];
}

template <class Visit>
void KvCache::for_segments(const Pass& pass, std::int64_t gpu_batch, Visit visit) const {
  const policy::BatchPass& batch = pass.batches[static_cast<std::size_t>(gpu_batch)];
  for (std::int32_t i = 0; i < batch.num_segments; ++i) {
    const Segment& segment = pass.segments[static_cast<std::size_t>(batch.first_segment + i)];
    visit(segment, seat_of(segment));
  }
}

std::int64_t KvCache::home_slot(const SeatPages& seat, std::int64_t unit, std::int32_t page) const {
  const Tier tier = seat.tier_of(page);
  return (unit - 1) * shape_.seats.pages_per_layer[tier] + seat.first_slot[tier] + page - seat.begin_of(tier);
}

std::byte* KvCache::home(const SeatPages& seat, std::int64_t unit, std::int32_t page) const {
  return memory_.block(Purpose::kKv, seat.tier_of(page)).data() + home_slot(seat, unit, page) * stride_;
}

std::span<std::byte> KvCache::window(std::int64_t index) const {
  const auto bytes = static_cast<std::size_t>(shape_.window_pages * stride_);
  return memory_.block(Purpose::kKvWindows, Tier::kGpu)
      .subspan(static_cast<std::size_t>(index) * bytes, bytes);
}

std::span<std::byte> KvCache::stage(std::int64_t index) const {
  const auto bytes = static_cast<std::size_t>(shape_.kv_stage_pages * stride_);
  return memory_.block(Purpose::kKvStage, Tier::kCpu).subspan(static_cast<std::size_t>(index) * bytes, bytes);
}

std::byte* KvCache::in_window(const Segment& segment, const SeatPages& seat, std::int64_t index,
                              std::int32_t page) const {
  return window(index).data() + (segment.window_page + page - seat.count[Tier::kGpu]) * stride_;
}

std::byte* KvCache::in_stage(const Segment& segment, const SeatPages& seat, std::int64_t index,
                             std::int32_t page) const {
  return stage(index).data() + (segment.stage_page + page - seat.begin_of(Tier::kDisk)) * stride_;
}

std::int64_t KvCache::append_pages(const Segment& segment, std::int64_t unit, std::int64_t slot,
                                   std::vector<const std::byte*>& out) const {
  const SeatPages& seat = seat_of(segment);
  const SegmentPages pages = policy::segment_pages(segment);
  for (std::int32_t page = 0; page < pages.end; ++page) {
    const Tier tier = seat.tier_of(page);
    if (segment.on_cpu) {
      out.push_back(tier == Tier::kDisk ? in_stage(segment, seat, slot, page) : home(seat, unit, page));
    } else {
      out.push_back(tier == Tier::kGpu ? home(seat, unit, page) : in_window(segment, seat, slot, page));
    }
  }
  return pages.end;
}

// ---- Disk.

void KvCache::read_requests(const Pass& pass, std::int64_t unit, std::int64_t gpu_batch, std::int64_t stage,
                            std::vector<IoRequest>& out) const {
  for_segments(pass, gpu_batch, [&](const Segment& segment, const SeatPages& seat) {
    const std::int32_t first = seat.begin_of(Tier::kDisk);
    const std::int32_t end = policy::segment_pages(segment).history_end;
    if (end <= first) return;
    // A seat's disk pages are neighbours in the file and in the stage.
    out.push_back({.op = IoOp::kRead,
                   .file = read_file_,
                   .offset = home_slot(seat, unit, first) * stride_,
                   .data = in_stage(segment, seat, stage, first),
                   .bytes = (end - first) * stride_});
  });
}

void KvCache::write_requests(const Pass& pass, std::int64_t unit, std::int64_t gpu_batch, std::int64_t stage,
                             std::vector<IoRequest>& out) const {
  for_segments(pass, gpu_batch, [&](const Segment& segment, const SeatPages& seat) {
    const SegmentPages pages = policy::segment_pages(segment);
    const std::int32_t first = std::max(seat.begin_of(Tier::kDisk), pages.touched_begin);
    if (pages.end <= first) return;
    out.push_back({.op = IoOp::kWrite,
                   .file = write_file_,
                   .offset = home_slot(seat, unit, first) * stride_,
                   .data = in_stage(segment, seat, stage, first),
                   .bytes = (pages.end - first) * stride_});
  });
}

// ---- GPU window.

namespace {

/// Copies pages whose places follow one another on both sides in one go. Add pages in order, then finish.
class PageCopies {
 public:
  PageCopies(std::int64_t page_bytes, std::int64_t stride, kernels::Stream& stream)
      : page_bytes_(page_bytes), stride_(stride), stream_(stream) {}
  void add(std::byte* to, const std::byte* from) {
    if (pages_ > 0 && to == to_ + pages_ * stride_ && from == from_ + pages_ * stride_) {
      ++pages_;
      return;
    }
    finish();
    to_ = to;
    from_ = from;
    pages_ = 1;
  }
  void finish() {
    if (pages_ > 0) stream_.copy(to_, from_, (pages_ - 1) * stride_ + page_bytes_);
    pages_ = 0;
  }

 private:
  const std::int64_t page_bytes_, stride_;
  kernels::Stream& stream_;
  std::byte* to_ = nullptr;
  const std::byte* from_ = nullptr;
  std::int64_t pages_ = 0;
};

}  // namespace

std::int64_t KvCache::load(const Pass& pass, std::int64_t unit, std::int64_t gpu_batch, std::int64_t window,
                           std::int64_t stage, kernels::Stream& stream) const {
  std::int64_t bytes = 0;
  PageCopies copies(shape_.kv.page_bytes(), stride_, stream);
  for_segments(pass, gpu_batch, [&](const Segment& segment, const SeatPages& seat) {
    if (segment.on_cpu) return;
    const std::int32_t end = policy::segment_pages(segment).history_end;
    for (std::int32_t page = seat.count[Tier::kGpu]; page < end; ++page) {
      const std::byte* from =
          seat.tier_of(page) == Tier::kDisk ? in_stage(segment, seat, stage, page) : home(seat, unit, page);
      copies.add(in_window(segment, seat, window, page), from);
      bytes += shape_.kv.page_bytes();
    }
  });
  copies.finish();
  return bytes;
}

std::int64_t KvCache::store(const Pass& pass, std::int64_t unit, std::int64_t gpu_batch, std::int64_t window,
                            std::int64_t stage, kernels::Stream& stream) const {
  std::int64_t bytes = 0;
  PageCopies copies(shape_.kv.page_bytes(), stride_, stream);
  for_segments(pass, gpu_batch, [&](const Segment& segment, const SeatPages& seat) {
    if (segment.on_cpu) return;
    const SegmentPages pages = policy::segment_pages(segment);
    for (std::int32_t page = std::max(seat.count[Tier::kGpu], pages.touched_begin); page < pages.end;
         ++page) {
      const std::byte* from = in_window(segment, seat, window, page);
      const policy::TokenRange tokens = policy::touched_tokens(segment, page);
      if (seat.tier_of(page) == Tier::kDisk) {
        copies.add(in_stage(segment, seat, stage, page), from);
        bytes += shape_.kv.page_bytes();
      } else if (tokens.end - tokens.begin == kKvPageTokens) {
        copies.add(home(seat, unit, page), from);
        bytes += shape_.kv.page_bytes();
      } else {
        bytes += copy_rows(home(seat, unit, page), from, tokens, stream);
      }
    }
  });
  copies.finish();
  return bytes;
}

std::int64_t KvCache::copy_rows(std::byte* to, const std::byte* from, policy::TokenRange tokens,
                                kernels::Stream& stream) const {
  const std::int64_t first = tokens.begin * shape_.kv.row_bytes();
  const std::int64_t bytes = (tokens.end - tokens.begin) * shape_.kv.row_bytes();
  const std::int64_t heads = 2 * shape_.kv.num_kv_heads;  // K heads, then V heads
  stream.copy_rows(to + first, shape_.kv.head_bytes(), from + first, shape_.kv.head_bytes(), bytes, heads);
  return heads * bytes;
}

}  // namespace sluice::offload
