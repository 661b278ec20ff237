// The pages of attention batches in a CUDA device's memory, with guard bytes between them.
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <vector>

#include <gtest/gtest.h>

#include "core/units.h"
#include "tests/kernels/cuda/device_operands.h"
#include "tests/kernels/kv_pages.h"

namespace sluice::kernels::testing {

/// The pages of some segments, copied into one allocation of NaNs, and the segments that name the copies.
class DevicePages {
 public:
  DevicePages(CudaDeviceUnderTest& cuda, const KvLayout& layout, const std::vector<PagedSegment>& host)
      : cuda_(cuda), layout_(layout), segments(host) {
    std::int64_t num_pages = 0;
    for (const PagedSegment& s : host) num_pages += pages_of(s);
    image_.assign(static_cast<std::size_t>((num_pages + 1) * stride()), std::byte{0xFF});
    memory_ = cuda.device().allocate(std::ssize(image_));
    std::int64_t at = stride() - kGuard;  // a guard before the first page too
    for (PagedSegment& s : segments) {
      std::vector<const std::byte*>& table = tables_.emplace_back();
      for (std::int64_t p = 0; p < pages_of(s); ++p, at += stride()) {
        std::memcpy(image_.data() + at, s.pages[p], static_cast<std::size_t>(layout.page_bytes()));
        table.push_back(memory_.bytes.data() + at);
      }
      s.pages = table.data();
    }
    cuda.stream().copy(memory_.bytes.data(), image_.data(), std::ssize(image_));
    cuda.stream().synchronize();
  }

  /// The page tables are dead once an operator returns, so tests scribble over them.
  void scribble_tables() {
    for (std::vector<const std::byte*>& table : tables_) std::fill(table.begin(), table.end(), nullptr);
  }

  /// Fails unless the device's pages are as `host` has them, guards included.
  void expect_equal(const std::vector<PagedSegment>& host) {
    std::int64_t at = stride() - kGuard;
    for (const PagedSegment& s : host) {
      for (std::int64_t p = 0; p < pages_of(s); ++p, at += stride()) {
        std::memcpy(image_.data() + at, s.pages[p], static_cast<std::size_t>(layout_.page_bytes()));
      }
    }
    std::vector<std::byte> now(image_.size());
    cuda_.fetch(memory_, now);
    const auto [wanted, found] = std::mismatch(image_.begin(), image_.end(), now.begin());
    ASSERT_TRUE(wanted == image_.end()) << "byte " << wanted - image_.begin() << " of the pages is "
                                        << static_cast<int>(*found) << ", not " << static_cast<int>(*wanted);
  }

 private:
  static constexpr std::int64_t kGuard = 256;
  static std::int64_t pages_of(const PagedSegment& s) {
    return kv_pages(std::max<std::int64_t>(s.first_kv + s.num_rows, s.full_prefix));
  }
  std::int64_t stride() const { return align_up(layout_.page_bytes(), kGuard) + kGuard; }

  CudaDeviceUnderTest& cuda_;
  KvLayout layout_;
  std::vector<std::byte> image_;
  DeviceMemory memory_;
  std::deque<std::vector<const std::byte*>> tables_;

 public:
  std::vector<PagedSegment> segments;
};

/// Rounds what a batch queries to the activation type, so that the reference sees what the device sees.
inline void round_to(DType dtype, GuardedMatrix& m) {
  for (std::int64_t r = 0; r < m.rows(); ++r) {
    for (std::int64_t c = 0; c < m.cols(); ++c) {
      m.at(r, c) = dtype == DType::kF16 ? to_float(to_half(m.at(r, c))) : to_float(to_bfloat16(m.at(r, c)));
    }
  }
}

}  // namespace sluice::kernels::testing
