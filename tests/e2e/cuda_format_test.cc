// Encoded weights on a CUDA device: stores of the trained sparse model in every format.
#include <cmath>
#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/store/manifest.h"
#include "core/store/store_writer.h"
#include "kernels/format/format.h"
#include "kernels/format/format_rules.h"
#include "tests/e2e/cuda_runs.h"
#include "tests/e2e/golden.h"
#include "tests/e2e/lane_bytes.h"
#include "tests/fakes/temp_folder.h"

namespace sluice {
namespace {

using testing::Golden;
using testing::RunOutcome;

constexpr const char* kSparse = "tiny-opt-books-sparse80";

// As for dense weights.
const testing::CudaLimits kLimits = testing::cuda_limits(DType::kF16);

offload::ModelSource stored(Encoding encoding) {
  kernels::FormatConfig formats;
  formats.format = encoding;
  offload::ModelSource source;
  source.store = testing::store_of(kSparse, formats);
  return source;
}

struct FormatSetting {
  std::vector<int> percents;
  bool cpu_attention;
};
const std::vector<FormatSetting>& format_settings() {
  static const std::vector<FormatSetting> all = {{{100, 0, 100, 0, 100, 0}, false},
                                                 {{30, 40, 0, 100, 100, 0}, true},
                                                 {{0, 50, 0, 100, 0, 100}, false},
                                                 {{0, 0, 100, 0, 100, 0}, false}};
  return all;
}

class CudaFormats : public testing::CudaRuns, public ::testing::WithParamInterface<Encoding> {};

/// The bytes of a tensor of a store.
std::vector<std::byte> read_tensor(const std::filesystem::path& store, const Manifest& manifest,
                                   const StoredTensor& tensor) {
  std::ifstream in(store / manifest.files.at(static_cast<std::size_t>(tensor.file)), std::ios::binary);
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.bytes));
  in.seekg(tensor.offset);
  in.read(reinterpret_cast<char*>(bytes.data()), tensor.bytes);
  EXPECT_EQ(in.gcount(), tensor.bytes);
  return bytes;
}

/// Writes a dense store of what the matrices of `store` decode to.
void write_decoded(const std::filesystem::path& store, const std::filesystem::path& to) {
  const Manifest manifest = read_manifest(store);
  StorePlan plan{manifest.spec, {}, {"decoded"}};
  for (const StoredTensor& tensor : manifest.tensors)
    plan.formats.push_back({Encoding::kDense, tensor.format.dtype});
  StoreWriter writer(StoreLock::acquire(to), plan, ExistingStore::kRefuse);
  for (const StoredTensor& tensor : manifest.tensors) {
    const std::vector<std::byte> bytes = read_tensor(store, manifest, tensor);
    if (tensor.format.encoding == Encoding::kDense) {
      writer.write_tensor(bytes);
      continue;
    }
    std::vector<std::uint16_t> values(static_cast<std::size_t>(tensor.spec.rows * tensor.spec.cols));
    kernels::codec_of(tensor.format.encoding)
        .expand({tensor.format, bytes, tensor.spec.rows, tensor.spec.cols}, 0, tensor.spec.rows, values);
    writer.write_tensor(std::as_bytes(std::span(values)));
  }
  writer.commit();
}

/// Log-probs of the prompts' tokens.
void expect_near(const RunOutcome& expected, const RunOutcome& found) {
  double worst = 0;
  double sum = 0;
  std::int64_t count = 0;
  ASSERT_EQ(expected.results.size(), found.results.size());
  for (std::size_t i = 0; i < expected.results.size(); ++i) {
    const auto& a = expected.results[i].prompt_logprobs;
    const auto& b = found.results[i].prompt_logprobs;
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t t = 0; t < a.size(); ++t) {
      const double error = std::abs(a[t] - b[t]);
      worst = std::max(worst, error);
      sum += error;
      ++count;
    }
  }
  ASSERT_GT(count, 0);
  EXPECT_LE(worst, kLimits.worst_logprob_error);
  EXPECT_LE(sum / static_cast<double>(count), kLimits.mean_logprob_error);
}

// Of the lossless formats transformers' log-probs are the reference; of the others the run of the dense model
// that their matrices decode to.
TEST_P(CudaFormats, AreWithinTheLimitsOfTheirReference) {
  const offload::ModelSource source = stored(GetParam());
  std::vector<std::int64_t> stored_bytes;
  for (const StoredTensor& tensor : read_manifest(source.store).tensors) stored_bytes.push_back(tensor.bytes);
  const testing::TempFolder folder;
  offload::ModelSource decoded;
  decoded.store = folder.path() / "decoded";
  write_decoded(source.store, decoded.store);
  for (const Golden& golden : testing::kOptGoldens) {
    if (golden.checkpoint != std::string_view(kSparse)) continue;
    const std::vector<offload::Request> requests = testing::golden_requests(golden);
    const RunOutcome reference =
        testing::run_on_cuda(decoded, testing::placed({100, 0, 100, 0, 100, 0}, 4, 2, false), requests);
    for (const FormatSetting& setting : format_settings()) {
      SCOPED_TRACE(fmt::format("{} weights {} {}", golden.cases, setting.percents[0], setting.percents[1]));
      const RunOutcome outcome = testing::run_on_cuda(
          source, testing::placed(setting.percents, 4, 2, setting.cpu_attention), requests);
      EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
      EXPECT_EQ(testing::counted_lane_bytes(outcome), testing::expected_lane_bytes(outcome, stored_bytes))
          << "the stored bytes are what moves";
      expect_near(reference, outcome);
      if (is_lossless(GetParam())) {
        testing::expect_golden(golden, outcome.results,
                               {.worst_logprob_error = kLimits.worst_logprob_error,
                                .mean_logprob_error = kLimits.mean_logprob_error,
                                .top2_gap = kLimits.top2_gap});
      }
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
  const RunOutcome quiet = testing::run_on_cuda(source, placement, requests);
  offload::RunHooks hooks;
  hooks.poison = offload::Poison::kOn;
  const RunOutcome outcome = testing::run_on_cuda(source, placement, requests, &hooks);
  EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
  EXPECT_EQ(testing::first_difference(quiet.results, outcome.results), "");
}

// Weights that stream from memory that is not pinned.
TEST_P(CudaFormats, PageableWeightsChangeNothing) {
  offload::ModelSource source = testing::synthetic(testing::small_spec());
  source.random_formats.format = GetParam();
  source.random_formats.sparsity = 0.7;
  const auto requests = testing::ragged_requests(source.random_spec->vocab_size);
  const auto placement = testing::placed({0, 100, 100, 0, 100, 0}, 3, 2, false);
  const RunOutcome pinned = testing::run_on_cuda(source, placement, requests);
  const RunOutcome pageable = testing::run_on_cuda(source, placement, requests, nullptr,
                                                   {.host_weights = offload::HostWeights::kPageable});
  EXPECT_TRUE(pageable.violations.empty()) << pageable.violations.front();
  EXPECT_EQ(testing::first_difference(pinned.results, pageable.results), "");
}

TEST_P(CudaFormats, BatchInvariantResultsDoNotDependOnTheBlock) {
  offload::ModelSource source = testing::synthetic(testing::small_spec());
  source.random_formats.format = GetParam();
  source.random_formats.sparsity = 0.7;
  const auto requests = testing::ragged_requests(source.random_spec->vocab_size);
  const auto run = [&](std::int64_t size, std::int64_t batches, const std::vector<int>& percents) {
    return testing::run_on_cuda(source, testing::placed(percents, size, batches, false), requests, nullptr,
                                {.batch_invariance = kernels::BatchInvariance::kOn});
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
