// Writing new K and V rows into pages on the CPU.
// This file is compiled once per SIMD target; the order of these includes makes it so.
// clang-format off
#include "kernels/device/cpu/simd_targets.h"
#define HWY_TARGET_INCLUDE "kernels/ops/kv_write_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/device/cpu/simd_inl.h"
// clang-format on

#include <algorithm>
#include <cstring>

#include "kernels/ops/cpu_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::kernels::HWY_NAMESPACE {

constexpr std::int64_t kMaxHeadDim = 256;

/// n elements of one head from an activation row to a page, rounded once.
template <class From, class T>
void write_head(const From* from, std::int64_t n, T* to) {
  if constexpr (std::is_same_v<From, float>) {
    store_row(from, n, to);
  } else if constexpr (std::is_same_v<From, T>) {
    std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(T));
  } else {
    float widened[kMaxHeadDim];
    for (std::int64_t i = 0; i < n; ++i) widened[i] = to_float(from[i]);
    store_row(widened, n, to);
  }
}

/// Where heads [first, end) of row `row` of the segment come from and go to.
template <class T>
class RowWriter {
 public:
  RowWriter(const KvWriteArgs& args, const PagedSegment& segment, std::int64_t row)
      : args_(args), row_(segment.first_row + row) {
    const std::int64_t kv = segment.first_kv + row;
    // The pages belong to the KV cache, which handed them out for writing; readers share the same type.
    page_ = const_cast<std::byte*>(segment.pages[kv / kKvPageTokens]);
    slot_ = kv % kKvPageTokens * args.layout.row_bytes();
  }

  /// Asks for the cache lines of all heads at once: they lie in as many places of a cold page, and writing
  /// them one after the other would wait for memory each time.
  HWY_INLINE void fetch(std::int64_t first, std::int64_t end) const {
    for (std::int64_t head = first; head < end; ++head) {
      for (std::int64_t at = 0; at < args_.layout.row_bytes(); at += 64) {
        __builtin_prefetch(row_of(args_.layout.k_offset(head)) + at, 1, 3);
        __builtin_prefetch(row_of(args_.layout.v_offset(head)) + at, 1, 3);
      }
    }
  }

  void write(std::int64_t first, std::int64_t end) const {
    write_heads(args_.k, args_.layout.k_offset(0), first, end);
    write_heads(args_.v, args_.layout.v_offset(0), first, end);
  }

 private:
  std::byte* row_of(std::int64_t page_offset) const { return page_ + page_offset + slot_; }

  void write_heads(const ConstMatrixView& x, std::int64_t page_offset, std::int64_t first,
                   std::int64_t end) const {
    const KvLayout& layout = args_.layout;
    with_elements(x.data, x.dtype, [&](const auto* data) {
      const auto* from = data + row_ * x.stride;
      for (std::int64_t head = first; head < end; ++head) {
        write_head(from + head * layout.head_dim, layout.head_dim,
                   reinterpret_cast<T*>(row_of(page_offset + head * layout.head_bytes())));
      }
    });
  }

  const KvWriteArgs& args_;
  std::int64_t row_;
  std::byte* page_;
  std::int64_t slot_;
};

/// A decode step writes one row of each of few sequences, so its heads are shared out, too.
template <class T>
void kv_write_typed(const KvWriteArgs& args, ThreadPool& pool) {
  constexpr std::int64_t kRowsPerRange = 16;
  constexpr std::int64_t kHeadsPerRange = 8;
  const std::int64_t heads = args.layout.num_kv_heads;
  const std::int64_t parts = div_up(heads, kHeadsPerRange);
  pool.parallel_for(static_cast<std::int64_t>(args.segments.size()) * parts, 1,
                    [&](std::int64_t begin, std::int64_t) HWY_ATTR {
                      const PagedSegment& segment = args.segments[static_cast<std::size_t>(begin / parts)];
                      if (segment.num_rows > kRowsPerRange) return;
                      const std::int64_t first = begin % parts * kHeadsPerRange;
                      const std::int64_t end = std::min(first + kHeadsPerRange, heads);
                      for (std::int64_t row = 0; row < segment.num_rows; ++row) {
                        const RowWriter<T> writer(args, segment, row);
                        writer.fetch(first, end);
                        writer.write(first, end);
                      }
                    });
  for (const PagedSegment& segment : args.segments) {
    if (segment.num_rows <= kRowsPerRange) continue;
    pool.parallel_for(segment.num_rows, kRowsPerRange, [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
      for (std::int64_t row = begin; row < end; ++row) RowWriter<T>(args, segment, row).write(0, heads);
    });
  }
}

void kv_write_any(const KvWriteArgs& args, ThreadPool& pool) {
  if (args.layout.format == KvFormat::kF16) {
    kv_write_typed<Half>(args, pool);
  } else {
    kv_write_typed<float>(args, pool);
  }
}

}  // namespace sluice::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::kernels::detail {
namespace {
HWY_EXPORT(kv_write_any);
}
void kv_write_cpu(const KvWriteArgs& args, ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(kv_write_any)(args, pool);
}
}  // namespace sluice::kernels::detail
#endif
