// Writing new K and V rows into pages on the CPU. Rounding is core's to_half(), to nearest even, on every
// target.
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

void store_row(const float* x, std::int64_t n, float* to) {
  std::memcpy(to, x, static_cast<std::size_t>(n) * sizeof(float));
}

void store_row(const float* x, std::int64_t n, Half* to) {
  std::int64_t i = 0;
#if HWY_CAP_GE256  // Highway's emulation on older targets truncates instead
  const hn::Rebind<hwy::float16_t, F32> d16;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(hn::DemoteTo(d16, load_f32(x + i)), d16, reinterpret_cast<hwy::float16_t*>(to + i));
  }
#endif
  for (; i < n; ++i) to[i] = to_half(x[i]);
}

/// Row `row` of the segment, all heads.
template <class T>
void write_row(const KvWriteArgs& args, const PagedSegment& segment, std::int64_t row) {
  const KvLayout& layout = args.layout;
  const std::int64_t kv = segment.first_kv + row;
  // The pages belong to the KV cache, which handed them out for writing; readers share the same type.
  auto* page = const_cast<std::byte*>(segment.pages[kv / kKvPageTokens]);
  const auto* k = reinterpret_cast<const float*>(args.k.data) + (segment.first_row + row) * args.k.stride;
  const auto* v = reinterpret_cast<const float*>(args.v.data) + (segment.first_row + row) * args.v.stride;
  const std::int64_t slot = kv % kKvPageTokens * layout.row_bytes();
  for (std::int64_t head = 0; head < layout.num_kv_heads; ++head) {
    const std::int64_t column = head * layout.head_dim;
    store_row(k + column, layout.head_dim, reinterpret_cast<T*>(page + layout.k_offset(head) + slot));
    store_row(v + column, layout.head_dim, reinterpret_cast<T*>(page + layout.v_offset(head) + slot));
  }
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
