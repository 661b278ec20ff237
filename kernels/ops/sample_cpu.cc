// What sampling needs of a row of logits at once: maximum, NaN, log(sum(exp)).
// This file is compiled once per SIMD target; the order of these includes makes it so.
// clang-format off
#include "kernels/device/cpu/simd_targets.h"
#define HWY_TARGET_INCLUDE "kernels/ops/sample_cpu.cc"
#include "hwy/foreach_target.h"
#include "kernels/device/cpu/simd_inl.h"
#include "hwy/contrib/math/math-inl.h"
// clang-format on

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/ops/cpu_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::kernels::HWY_NAMESPACE {

/// The largest logit, or NaN if any is NaN.
float largest_logit(const float* logits, std::int64_t n) {
  const F32 d;
  V32 maxima = hn::Set(d, -std::numeric_limits<float>::infinity());
  V32 nans = hn::Zero(d);
  const auto visit = [&](V32 v) HWY_ATTR {
    maxima = hn::Max(maxima, v);
    nans = hn::Add(nans, hn::IfThenElseZero(hn::IsNaN(v), hn::Set(d, 1.0F)));
  };
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) visit(load_f32(logits + i));
  for (; i < n; ++i) visit(hn::Set(d, logits[i]));
  return max_of_lanes(nans) > 0.0F ? std::numeric_limits<float>::quiet_NaN() : max_of_lanes(maxima);
}

/// Sum of exp(logit - max). At most kBlock terms are added in fp32 before they join the sum in double.
double sum_exp(const float* logits, std::int64_t n, float max) {
  const F32 d;
  constexpr std::int64_t kBlock = 8;
  const V32 shift = hn::Set(d, max);
  double sum = 0;
  std::int64_t i = 0;
  while (i + kLanes <= n) {
    V32 block = hn::Zero(d);
    for (const std::int64_t end = std::min(i + kBlock * kLanes, n); i + kLanes <= end; i += kLanes) {
      block = hn::Add(block, hn::Exp(d, hn::Sub(load_f32(logits + i), shift)));
    }
    HWY_ALIGN float lanes[kLanes];
    hn::Store(block, d, lanes);
    for (const float lane : lanes) sum += lane;
  }
  for (; i < n; ++i) sum += hn::GetLane(hn::Exp(d, hn::Sub(hn::Set(d, logits[i]), shift)));
  return sum;
}

detail::LogitSummary summarize(std::span<const float> logits) {
  const auto n = static_cast<std::int64_t>(logits.size());
  const float max = largest_logit(logits.data(), n);
  // With an infinite maximum the differences below are not numbers; core's version knows the limits.
  if (!std::isfinite(max)) return {max, log_sum_exp(logits)};
  return {max, static_cast<double>(max) + std::log(sum_exp(logits.data(), n, max))};
}

}  // namespace sluice::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::kernels::detail {
namespace {
HWY_EXPORT(summarize);
}
LogitSummary summarize_logits_cpu(std::span<const float> logits) {
  return HWY_DYNAMIC_DISPATCH(summarize)(logits);
}
}  // namespace sluice::kernels::detail
#endif
