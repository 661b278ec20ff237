// Runs of the engine on a CUDA device, and how near two devices must come.
#pragma once

#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/e2e/small_model.h"

namespace sluice::testing {

/// Limits of log-probs against fp32 activations, and of the gap between the two most likely tokens below
/// which either may be chosen. fp16: what is asked of the golden models. bf16 rounds to 8 bits instead
/// of 11, so eight times as far.
struct CudaLimits {
  double worst_logprob_error = 8e-2, mean_logprob_error = 4e-3, top2_gap = 2e-2;
};
CudaLimits cuda_limits(DType activations);

/// Skips without a device.
class CudaRuns : public ::testing::Test {
 protected:
  void SetUp() override;
};

RunOutcome run_on_cuda(const offload::ModelSource& source, const policy::Placement& placement,
                       const std::vector<offload::Request>& requests,
                       const offload::RunHooks* hooks = nullptr, RunDevice device = {});

/// ragged_requests, greedy, which also want the two most likely tokens, so that a near tie can be told from
/// an error.
std::vector<offload::Request> greedy_requests(std::int64_t vocab_size);

/// The first difference that rounding does not excuse; empty if there is none.
std::string first_real_difference(std::span<const offload::Result> expected,
                                  std::span<const offload::Result> found, const CudaLimits& limits = {});

/// One step in six sleeps up to 2 ms.
offload::StepHook random_delays(std::uint32_t seed);

}  // namespace sluice::testing
