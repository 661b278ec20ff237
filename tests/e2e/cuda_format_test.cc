// Encoded weights on a CUDA device: stores of the trained sparse model in every format.
#include <cmath>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "kernels/device/device.h"
#include "kernels/format/format_rules.h"
#include "tests/e2e/golden.h"
#include "tests/e2e/lane_bytes.h"
#include "tests/e2e/small_model.h"

namespace sluice {
namespace {

using testing::Golden;
using testing::RunOutcome;

constexpr const char* kSparse = "tiny-opt-books-sparse80";

// As for dense weights: what fp16 activations leave of fp32.
constexpr double kWorstLogprobError = 8e-2;
constexpr double kMeanLogprobError = 4e-3;
constexpr double kGap = 2e-2;

offload::ModelSource stored(Encoding encoding) {
  kernels::FormatConfig formats;
  formats.format = encoding;
  offload::ModelSource source;
  source.store = testing::store_of(kSparse, formats);
  return source;
}

RunOutcome run_on(offload::DeviceChoice::Kind kind, const offload::ModelSource& source,
                  const policy::Placement& placement, const std::vector<offload::Request>& requests,
                  const offload::RunHooks* hooks = nullptr,
                  kernels::BatchInvariance invariance = kernels::BatchInvariance::kOff) {
  return testing::run_requests(source, placement, requests, nullptr, hooks, 2,
                               {.device = {.kind = kind}, .batch_invariance = invariance});
}
constexpr auto kCuda = offload::DeviceChoice::Kind::kCuda;
constexpr auto kCpu = offload::DeviceChoice::Kind::kCpu;

struct Setting {
  std::vector<int> percents;
  bool cpu_attention;
};
const std::vector<Setting>& settings() {
  static const std::vector<Setting> all = {{{100, 0, 100, 0, 100, 0}, false},
                                           {{30, 40, 0, 100, 100, 0}, true},
                                           {{0, 50, 0, 100, 0, 100}, false},
                                           {{0, 0, 100, 0, 100, 0}, false}};
  return all;
}

class CudaFormats : public ::testing::TestWithParam<Encoding> {
 protected:
  void SetUp() override {
    if (!kernels::cuda_device_present()) GTEST_SKIP() << kernels::cuda_devices_text();
  }
};

TEST_P(CudaFormats, AreWithinTheLimitsOfTheirReference) {
  const bool lossless = is_lossless(GetParam());
  for (const Golden& golden : testing::kOptGoldens) {
    if (golden.checkpoint != std::string_view(kSparse)) continue;
    std::vector<offload::Request> requests = testing::golden_requests(golden);
    for (const Setting& setting : settings()) {
      SCOPED_TRACE(fmt::format("{} weights {} {}", golden.cases, setting.percents[0], setting.percents[1]));
      const RunOutcome outcome =
          run_on(kCuda, stored(GetParam()), testing::placed(setting.percents, 4, 2, setting.cpu_attention),
                 requests);
      EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
      EXPECT_EQ(testing::counted_lane_bytes(outcome), testing::expected_lane_bytes(outcome))
          << "the stored bytes are what moves";
      if (lossless) {
        testing::expect_golden(golden, outcome.results,
                               {.worst_logprob_error = kWorstLogprobError,
                                .mean_logprob_error = kMeanLogprobError,
                                .top2_gap = kGap});
        continue;
      }
      // The CPU device computes exactly with the dequantised matrices.
      const RunOutcome reference =
          run_on(kCpu, stored(GetParam()), testing::placed({100, 0, 100, 0, 100, 0}, 4, 1, false), requests);
      double worst = 0, sum = 0;
      std::int64_t count = 0;
      for (std::size_t i = 0; i < requests.size(); ++i) {
        const auto& expected = reference.results[i].prompt_logprobs;
        const auto& found = outcome.results[i].prompt_logprobs;
        ASSERT_EQ(expected.size(), found.size());
        for (std::size_t t = 0; t < expected.size(); ++t) {
          const double error = std::abs(expected[t] - found[t]);
          worst = std::max(worst, error);
          sum += error;
          ++count;
        }
      }
      ASSERT_GT(count, 0);
      EXPECT_LE(worst, kWorstLogprobError);
      EXPECT_LE(sum / static_cast<double>(count), kMeanLogprobError);
    }
  }
}

// Slots and windows that are about to be rewritten hold NaN.
TEST_P(CudaFormats, PoisonChangesNothing) {
  offload::ModelSource source = testing::synthetic(testing::small_spec());
  source.random_formats.format = GetParam();
  source.random_formats.sparsity = 0.7;
  const auto requests = testing::ragged_requests(source.random_spec->vocab_size);
  const auto placement = testing::placed({20, 40, 100, 0, 100, 0}, 2, 3, false);
  const RunOutcome quiet = run_on(kCuda, source, placement, requests);
  offload::RunHooks hooks;
  hooks.poison = offload::Poison::kOn;
  const RunOutcome outcome = run_on(kCuda, source, placement, requests, &hooks);
  EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
  EXPECT_EQ(testing::first_difference(quiet.results, outcome.results), "");
}

TEST_P(CudaFormats, BatchInvariantResultsDoNotDependOnTheBlock) {
  offload::ModelSource source = testing::synthetic(testing::small_spec());
  source.random_formats.format = GetParam();
  source.random_formats.sparsity = 0.7;
  const auto requests = testing::ragged_requests(source.random_spec->vocab_size);
  const auto run = [&](std::int64_t size, std::int64_t batches, const std::vector<int>& percents) {
    return run_on(kCuda, source, testing::placed(percents, size, batches, false), requests, nullptr,
                  kernels::BatchInvariance::kOn);
  };
  const RunOutcome one_by_one = run(1, 1, {100, 0, 100, 0, 100, 0});
  for (const auto& [size, batches] : {std::pair{5, 2}, {14, 1}}) {
    EXPECT_EQ(
        testing::first_difference(one_by_one.results, run(size, batches, {20, 40, 100, 0, 100, 0}).results),
        "");
  }
}

std::vector<Encoding> encodings() {
  const auto all = all_encodings();
  return {all.begin() + 1, all.end()};  // dense is the first
}
INSTANTIATE_TEST_SUITE_P(All, CudaFormats, ::testing::ValuesIn(encodings()),
                         [](const auto& tested) { return std::string(encoding_name(tested.param)); });

}  // namespace
}  // namespace sluice
