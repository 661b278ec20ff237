#include "tests/e2e/cuda_runs.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include <fmt/format.h>

#include "core/sampling/philox.h"
#include "kernels/device/device.h"

namespace sluice::testing {

using offload::Request;
using offload::Result;

CudaLimits cuda_limits(DType activations) {
  CudaLimits limits;
  if (activations != DType::kBF16) return limits;
  for (double* limit : {&limits.worst_logprob_error, &limits.mean_logprob_error, &limits.top2_gap})
    *limit *= 8;
  return limits;
}

void CudaRuns::SetUp() {
  if (!kernels::cuda_device_present()) GTEST_SKIP() << kernels::cuda_devices_text();
}

RunOutcome run_on_cuda(const offload::ModelSource& source, const policy::Placement& placement,
                       const std::vector<Request>& requests, const offload::RunHooks* hooks,
                       RunDevice device) {
  device.device.kind = offload::DeviceChoice::Kind::kCuda;
  return run_requests(source, placement, requests, nullptr, hooks, 2, device);
}

std::vector<Request> greedy_requests(std::int64_t vocab_size) {
  std::vector<Request> requests = ragged_requests(vocab_size);
  for (Request& request : requests) {
    request.sampling = {};
    request.want_logprobs = true;
    request.num_top_logprobs = 2;
  }
  return requests;
}

std::string first_real_difference(std::span<const Result> expected, std::span<const Result> found,
                                  const CudaLimits& limits) {
  double sum = 0;
  std::int64_t count = 0;
  const auto too_far = [&](double a, double b) {
    sum += std::abs(a - b);
    ++count;
    return !(std::abs(a - b) <= limits.worst_logprob_error);  // so that NaN is too far
  };
  if (expected.size() != found.size()) return "numbers of results differ";
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const Result& a = expected[i];
    const Result& b = found[i];
    if (a.prompt_logprobs.size() != b.prompt_logprobs.size())
      return fmt::format("request {}: numbers of prompt log-probs differ", i);
    for (std::size_t t = 0; t < a.prompt_logprobs.size(); ++t) {
      if (too_far(a.prompt_logprobs[t], b.prompt_logprobs[t]))
        return fmt::format("request {} prompt token {}: log-prob {} and {}", i, t, a.prompt_logprobs[t],
                           b.prompt_logprobs[t]);
    }
    const std::size_t common = std::min(a.token_ids.size(), b.token_ids.size());
    std::size_t t = 0;
    for (; t < common && a.token_ids[t] == b.token_ids[t]; ++t) {
      if (too_far(a.logprobs[t].logprob, b.logprobs[t].logprob))
        return fmt::format("request {} token {}: log-prob {} and {}", i, t, a.logprobs[t].logprob,
                           b.logprobs[t].logprob);
    }
    if (t == common && a.token_ids.size() == b.token_ids.size()) continue;
    if (t == common)
      return fmt::format("request {}: {} and {} tokens", i, a.token_ids.size(), b.token_ids.size());
    const double gap = a.logprobs[t].top[0].logprob - a.logprobs[t].top[1].logprob;
    if (gap > limits.top2_gap)
      return fmt::format("request {} token {}: {} and {}, the gap is {}", i, t, a.token_ids[t],
                         b.token_ids[t], gap);
  }
  if (count > 0 && sum / static_cast<double>(count) > limits.mean_logprob_error)
    return fmt::format("log-probs differ by {} on average", sum / static_cast<double>(count));
  return {};
}

offload::StepHook random_delays(std::uint32_t seed) {
  return [seed](const policy::Step& step) {
    const PhiloxCounter bits = philox4x32_10(
        {static_cast<std::uint32_t>(step.seq), static_cast<std::uint32_t>(step.lane), 0, 0}, {seed, 0});
    if (bits[0] % 6 == 0) std::this_thread::sleep_for(std::chrono::microseconds(bits[1] % 2000));
  };
}

}  // namespace sluice::testing
