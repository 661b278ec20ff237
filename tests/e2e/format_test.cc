// Whole runs on weights that are not dense: stores converted from the trained sparse model, and synthetic
// models.
#include <gtest/gtest.h>

#include "core/store/manifest.h"
#include "kernels/format/format_rules.h"
#include "tests/e2e/e2e.h"
#include "tests/e2e/small_model.h"

namespace sluice {
namespace {

constexpr const char* kSparse = "tiny-opt-books-sparse80";

std::vector<offload::Request> scored_prompts() {
  std::vector<offload::Request> requests;
  for (const testing::GoldenCase& c : testing::golden_cases(fmt::format("{}.golden.json", kSparse))) {
    offload::Request request;
    request.prompt_ids = c.prompt_ids;
    request.max_new_tokens = 8;
    request.want_prompt_logprobs = true;
    request.want_logprobs = true;
    request.ignore_eos = true;
    requests.push_back(std::move(request));
  }
  return requests;
}

offload::ModelSource stored(Encoding encoding) {
  kernels::FormatConfig formats;
  formats.format = encoding;
  offload::ModelSource source;
  source.store = testing::store_of(kSparse, formats);
  return source;
}

std::string name_of(const ::testing::TestParamInfo<Encoding>& info) {
  return std::string(encoding_name(info.param));
}

class LosslessFormat : public ::testing::TestWithParam<Encoding> {};

TEST_P(LosslessFormat, GivesTheLogprobsOfTheDenseModelBitByBit) {
  const offload::ModelSource source = stored(GetParam());
  for (const StoredTensor& tensor : read_manifest(source.store).tensors) {
    const bool is_encoded = kernels::can_be_encoded(tensor.spec);
    EXPECT_EQ(tensor.format.encoding, is_encoded ? GetParam() : Encoding::kDense) << tensor.spec.name;
    EXPECT_EQ(tensor.stats.error, 0);
  }
  const testing::RunOutcome dense = testing::run_requests(
      testing::model(kSparse), testing::placed({100, 0, 100, 0, 100, 0}, 4, 1, false), scored_prompts());
  for (const auto& percents :
       {std::vector<int>{100, 0, 100, 0, 100, 0}, {30, 40, 0, 100, 100, 0}, {0, 0, 0, 100, 0, 100}}) {
    const testing::RunOutcome outcome =
        testing::run_requests(source, testing::placed(percents, 2, 2, true), scored_prompts());
    EXPECT_EQ(testing::first_difference(dense.results, outcome.results), "");
    EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
  }
}

INSTANTIATE_TEST_SUITE_P(All, LosslessFormat,
                         ::testing::Values(Encoding::kTiledCsl, Encoding::kBankCsl, Encoding::kPairs24,
                                           Encoding::kBitmap),
                         name_of);

class SyntheticFormat : public ::testing::TestWithParam<Encoding> {};

/// Sizes that no tile divides, and a matrix of more than one tile each way.
ModelSpec synthetic_spec() {
  ModelSpec spec = testing::small_spec();
  spec.ffn_dim = 300;
  return spec;
}

// Two of the formats in bf16.
TEST_P(SyntheticFormat, GivesTheSameResultsFromEveryTier) {
  ModelSpec spec = synthetic_spec();
  spec.weight_dtype =
      GetParam() == Encoding::kBankCsl || GetParam() == Encoding::kInt4G64 ? DType::kBF16 : DType::kF16;
  offload::ModelSource source = testing::synthetic(spec);
  source.random_formats.format = GetParam();
  source.random_formats.sparsity = 0.7;
  const auto requests = testing::ragged_requests(source.random_spec->vocab_size);
  const testing::RunOutcome resident =
      testing::run_requests(source, testing::placed({100, 0, 100, 0, 100, 0}, 4, 1, false), requests);
  for (const auto& percents : {std::vector<int>{0, 100, 100, 0, 100, 0}, {0, 0, 100, 0, 100, 0}}) {
    const testing::RunOutcome outcome =
        testing::run_requests(source, testing::placed(percents, 2, 2, false), requests);
    EXPECT_EQ(testing::first_difference(resident.results, outcome.results), "");
    EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
  }
  if (!is_lossless(GetParam())) return;
  source.random_formats.format = Encoding::kDense;
  const testing::RunOutcome dense =
      testing::run_requests(source, testing::placed({100, 0, 100, 0, 100, 0}, 4, 1, false), requests);
  EXPECT_EQ(testing::first_difference(dense.results, resident.results), "") << "the values are the same";
}

INSTANTIATE_TEST_SUITE_P(All, SyntheticFormat, ::testing::ValuesIn(all_encodings()), name_of);

}  // namespace
}  // namespace sluice
