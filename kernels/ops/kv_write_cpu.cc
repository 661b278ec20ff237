// Writing new K and V rows into pages on the CPU.
// This file is compiled once per SIMD target; the order of these includes makes it so.
// clang-format off
#include "kernels/device/cpu/simd_targets.h"
#define HWY_TARGET_INCLUDE "kernels/ops/kv_write_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/device/cpu/simd_inl.h"
// clang-format on

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

/// Row `row` of the segment, all heads.
template <class T>
void write_row(const KvWriteArgs& args, const PagedSegment& segment, std::int64_t row) {
  const KvLayout& layout = args.layout;
  const std::int64_t kv = segment.first_kv + row;
  // The pages belong to the KV cache, which handed them out for writing; readers share the same type.
  auto* page = const_cast<std::byte*>(segment.pages[kv / kKvPageTokens]);
  const std::int64_t slot = kv % kKvPageTokens * layout.row_bytes();
  const auto write = [&](const ConstMatrixView& x, std::int64_t page_offset) {
    with_elements(x.data, x.dtype, [&](const auto* data) {
      const auto* from = data + (segment.first_row + row) * x.stride;
      for (std::int64_t head = 0; head < layout.num_kv_heads; ++head) {
        write_head(from + head * layout.head_dim, layout.head_dim,
                   reinterpret_cast<T*>(page + page_offset + head * layout.head_bytes() + slot));
      }
    });
  };
  write(args.k, layout.k_offset(0));
  write(args.v, layout.v_offset(0));
}

template <class T>
void kv_write_typed(const KvWriteArgs& args, ThreadPool& pool) {
  constexpr std::int64_t kRowsPerRange = 16;
  pool.parallel_for(static_cast<std::int64_t>(args.segments.size()), kRowsPerRange,
                    [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
                      for (std::int64_t s = begin; s < end; ++s) {
                        const PagedSegment& segment = args.segments[static_cast<std::size_t>(s)];
                        if (segment.num_rows > kRowsPerRange) continue;
                        for (std::int64_t row = 0; row < segment.num_rows; ++row)
                          write_row<T>(args, segment, row);
                      }
                    });
  for (const PagedSegment& segment : args.segments) {
    if (segment.num_rows <= kRowsPerRange) continue;
    pool.parallel_for(segment.num_rows, kRowsPerRange, [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
      for (std::int64_t row = begin; row < end; ++row) write_row<T>(args, segment, row);
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
