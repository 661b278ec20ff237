// Prefetching of paged KV, once per SIMD target, so that its steps are inlined into that target's loops. For
// attention_cpu.cc only (see simd_inl.h).
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/device/cpu/simd_inl.h"
#include "kernels/ops/attention.h"

#if defined(SLUICE_KERNELS_OPS_KV_FETCHER_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SLUICE_KERNELS_OPS_KV_FETCHER_INL_H_
#undef SLUICE_KERNELS_OPS_KV_FETCHER_INL_H_
#else
#define SLUICE_KERNELS_OPS_KV_FETCHER_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace sluice::kernels::HWY_NAMESPACE {

/// Brings the K and V that come next into the L2 cache while the ones at hand are computed: hardware
/// prefetchers stop at 4 KiB, and pages lie anywhere. Every step of the computation calls it for about as
/// much as it reads itself, so that memory is never idle and never flooded; it runs up to one page ahead.
class KvFetcher {
 public:
  /// Of the last page only what `visible` KV indices take is fetched.
  KvFetcher(const PagedSegment& segment, const KvLayout& layout, std::int64_t kv_head, std::int64_t visible)
      : pages_(segment.pages),
        k_offset_(layout.k_offset(kv_head)),
        v_offset_(layout.v_offset(kv_head)),
        run_bytes_(layout.head_bytes()),
        last_run_bytes_((visible - (kv_pages(visible) - 1) * kKvPageTokens) * layout.row_bytes()),
        num_pages_(kv_pages(visible)) {}

  /// The computation has come to `page`.
  void start_page(std::int64_t page) { limit_ = std::min(page + 2, num_pages_); }

  /// Fetches the next kLines cache lines, if there is anything left to fetch for now. Always inlined: GCC 12
  /// takes a function that only prefetches for one without effect and drops its calls.
  template <int kLines>
  HWY_INLINE void fetch() {
    if (at_ >= end_ && !next_run()) return;
#pragma GCC unroll 8
    for (int i = 0; i < kLines; ++i) __builtin_prefetch(at_ + 64 * i, 0, 2);
    at_ += 64 * kLines;
  }

 private:
  bool next_run() {
    if (page_ >= limit_) return false;
    at_ = pages_[page_] + (in_v_ ? v_offset_ : k_offset_);
    end_ = at_ + (page_ + 1 < num_pages_ ? run_bytes_ : last_run_bytes_);
    page_ += in_v_ ? 1 : 0;
    in_v_ = !in_v_;
    return true;
  }

  const std::byte* const* pages_;
  std::int64_t k_offset_, v_offset_, run_bytes_, last_run_bytes_, num_pages_;
  std::int64_t page_ = 0, limit_ = 0;  // the page of the next run; no run of limit_ is begun
  bool in_v_ = true;                   // the first page's K is read before anything could be fetched
  const std::byte* at_ = nullptr;
  const std::byte* end_ = nullptr;
};

/// Cache lines that a step over `elements` of T reads, at least one.
template <class T>
constexpr int lines_of(std::int64_t elements) {
  return static_cast<int>(std::max<std::int64_t>(1, elements * static_cast<std::int64_t>(sizeof(T)) / 64));
}

}  // namespace sluice::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
