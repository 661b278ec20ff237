// Embedding on the CPU: rows are widened to fp32, several tokens per range.
// This file is compiled once per SIMD target; the order of these includes makes it so.
// clang-format off
#include "kernels/device/cpu/simd_targets.h"
#define HWY_TARGET_INCLUDE "kernels/ops/embedding_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/device/cpu/simd_inl.h"
// clang-format on

#include "kernels/ops/cpu_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::kernels::HWY_NAMESPACE {

template <class T>
void copy_row(const T* row, float* y, std::int64_t dim, bool accumulate) {
  std::int64_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) {
    const V32 value = load_f32(row + i);
    store_f32(accumulate ? hn::Add(load_f32(y + i), value) : value, y + i);
  }
  if (const std::int64_t rest = dim - i; rest > 0) {
    const V32 value = load_f32_first(row + i, rest);
    store_f32_first(accumulate ? hn::Add(load_f32_first(y + i, rest), value) : value, y + i, rest);
  }
}

template <class T>
void embedding_typed(const EmbeddingArgs& args, ThreadPool& pool) {
  const auto* table = reinterpret_cast<const T*>(args.table.data.data());
  auto* y = reinterpret_cast<float*>(args.y.data);
  const std::int64_t dim = args.y.cols;
  pool.parallel_for(args.y.rows, 16, [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
    for (std::int64_t t = begin; t < end; ++t) {
      copy_row(table + args.ids[static_cast<std::size_t>(t)] * dim, y + t * args.y.stride, dim,
               args.accumulate);
    }
  });
}

void embedding_any(const EmbeddingArgs& args, ThreadPool& pool) {
  if (args.table.format == WeightFormat::kDenseF16) {
    embedding_typed<Half>(args, pool);
  } else {
    embedding_typed<BFloat16>(args, pool);
  }
}

}  // namespace sluice::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::kernels::detail {
namespace {
HWY_EXPORT(embedding_any);
}
void embedding_cpu(const EmbeddingArgs& args, ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(embedding_any)(args, pool);
}
}  // namespace sluice::kernels::detail
#endif
