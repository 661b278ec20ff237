// Layer norm on the CPU: one row at a time, three sweeps (mean, variance, scale) over a row that stays in L1
// or L2. The variance is summed from the differences, because E[x^2] - E[x]^2 cancels.
// This file is compiled once per SIMD target; the order of these includes makes it so.
// clang-format off
#include "kernels/device/cpu/simd_targets.h"
#define HWY_TARGET_INCLUDE "kernels/ops/layer_norm_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/device/cpu/simd_inl.h"
// clang-format on

#include "kernels/ops/cpu_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::kernels::HWY_NAMESPACE {

/// Sum over the row of add(element, accumulator), with four accumulators to hide the latency of the addition.
template <class Add>
HWY_INLINE float sum_row(const float* x, std::int64_t dim, const Add& add) {
  const F32 d;
  V32 a0 = hn::Zero(d), a1 = hn::Zero(d), a2 = hn::Zero(d), a3 = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= dim; i += 4 * kLanes) {
    a0 = add(load_f32(x + i), a0);
    a1 = add(load_f32(x + i + kLanes), a1);
    a2 = add(load_f32(x + i + 2 * kLanes), a2);
    a3 = add(load_f32(x + i + 3 * kLanes), a3);
  }
  for (; i + kLanes <= dim; i += kLanes) a0 = add(load_f32(x + i), a0);
  float sum = sum_of_lanes(hn::Add(hn::Add(a0, a1), hn::Add(a2, a3)));
  for (; i < dim; ++i) sum = hn::GetLane(add(hn::Set(d, x[i]), hn::Set(d, sum)));
  return sum;
}

/// y = (x - mean) * scale * gamma + beta over one vector; absent gamma and beta are 1 and 0.
HWY_INLINE V32 normalize(V32 x, V32 mean, V32 scale, V32 gamma, V32 beta) {
  return hn::MulAdd(hn::Mul(hn::Sub(x, mean), scale), gamma, beta);
}

template <class T>
void norm_row(const float* x, const T* gamma, const T* beta, float eps, std::int64_t dim, float* y) {
  const F32 d;
  const auto count = static_cast<float>(dim);
  const float mean = sum_row(x, dim, [](V32 v, V32 sum) HWY_ATTR { return hn::Add(v, sum); }) / count;
  const V32 means = hn::Set(d, mean);
  const float squares = sum_row(x, dim, [means](V32 v, V32 sum) HWY_ATTR {
    const V32 difference = hn::Sub(v, means);
    return hn::MulAdd(difference, difference, sum);
  });
  const V32 scale = hn::Div(hn::Set(d, 1.0F), hn::Sqrt(hn::Set(d, squares / count + eps)));
  const V32 one = hn::Set(d, 1.0F);
  const V32 zero = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) {
    const V32 g = gamma != nullptr ? load_f32(gamma + i) : one;
    const V32 b = beta != nullptr ? load_f32(beta + i) : zero;
    store_f32(normalize(load_f32(x + i), means, scale, g, b), y + i);
  }
  if (const std::int64_t rest = dim - i; rest > 0) {
    const V32 g = gamma != nullptr ? load_f32_first(gamma + i, rest) : one;
    const V32 b = beta != nullptr ? load_f32_first(beta + i, rest) : zero;
    store_f32_first(normalize(load_f32_first(x + i, rest), means, scale, g, b), y + i, rest);
  }
}

template <class T>
void layer_norm_typed(const LayerNormArgs& args, const std::byte* gamma_data, const std::byte* beta_data,
                      ThreadPool& pool) {
  const auto* x = reinterpret_cast<const float*>(args.x.data);
  const auto* gamma = reinterpret_cast<const T*>(gamma_data);
  const auto* beta = reinterpret_cast<const T*>(beta_data);
  auto* y = reinterpret_cast<float*>(args.y.data);
  pool.parallel_for(args.x.rows, 4, [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
    for (std::int64_t t = begin; t < end; ++t) {
      norm_row(x + t * args.x.stride, gamma, beta, args.eps, args.x.cols, y + t * args.y.stride);
    }
  });
}

void layer_norm_any(const LayerNormArgs& args, ThreadPool& pool) {
  const DType dtype = args.gamma ? args.gamma.dtype : args.beta.dtype;
  if (dtype == DType::kBF16) {
    layer_norm_typed<BFloat16>(args, args.gamma.data, args.beta.data, pool);
  } else {
    layer_norm_typed<Half>(args, args.gamma.data, args.beta.data, pool);
  }
}

}  // namespace sluice::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::kernels::detail {
namespace {
HWY_EXPORT(layer_norm_any);
}
void layer_norm_cpu(const LayerNormArgs& args, ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(layer_norm_any)(args, pool);
}
}  // namespace sluice::kernels::detail
#endif
