#include <algorithm>
#include <cmath>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/config/config.h"
#include "core/error.h"
#include "kernels/format/format_rules.h"
#include "kernels/format/prune.h"
#include "tests/kernels/weight_cases.h"
#include "tests/support/error_of.h"

namespace sluice::kernels {
namespace {

using sluice::testing::error_of;
using ::testing::HasSubstr;
using testing::make_weights;
using testing::Mask;

std::vector<std::uint16_t> dense_weights(std::int64_t rows, std::int64_t cols) {
  return make_weights({"", rows, cols, Mask::kRandom, 0.0}, DType::kF16);
}

std::uint16_t magnitude(std::uint16_t value) { return value & 0x7FFFU; }

/// Every value that is left is at least as large as every one that went.
void expect_the_smallest_went(std::span<const std::uint16_t> before, std::span<const std::uint16_t> after) {
  std::uint16_t largest_gone = 0, smallest_left = 0x7FFF;
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (after[i] == 0) {
      largest_gone = std::max(largest_gone, magnitude(before[i]));
    } else {
      EXPECT_EQ(after[i], before[i]);
      smallest_left = std::min(smallest_left, magnitude(after[i]));
    }
  }
  EXPECT_LE(largest_gone, smallest_left);
}

TEST(Prune, LeavesTheLargestOfEachRow) {
  constexpr std::int64_t kRows = 70, kCols = 130;
  for (const double sparsity : {0.1, 0.5, 0.8, 1.0}) {
    const std::vector<std::uint16_t> before = dense_weights(kRows, kCols);
    std::vector<std::uint16_t> after = before;
    prune_rows({sparsity, PruneScope::kRow, {}}, "w", 0, kCols, {}, after);
    for (std::int64_t r = 0; r < kRows; ++r) {
      const auto first = static_cast<std::size_t>(r * kCols);
      const auto row_before = std::span(before).subspan(first, kCols);
      const auto row_after = std::span(after).subspan(first, kCols);
      EXPECT_EQ(count_zeros(row_after), std::llround(sparsity * kCols)) << r;
      expect_the_smallest_went(row_before, row_after);
    }
  }
}

TEST(Prune, GivesEveryTileTheSameShare) {
  constexpr std::int64_t kRows = 200, kCols = 100;
  std::vector<std::uint16_t> after = dense_weights(kRows, kCols);
  prune_rows({0.75, PruneScope::kTile, {}}, "w", 128, kCols, {}, after);
  for (const auto& [row, rows] : std::map<std::int64_t, std::int64_t>{{0, 128}, {128, 72}}) {
    for (const auto& [col, cols] : std::map<std::int64_t, std::int64_t>{{0, 64}, {64, 36}}) {
      std::int64_t zeros = 0;
      for (std::int64_t r = row; r < row + rows; ++r) {
        zeros += count_zeros(std::span(after).subspan(static_cast<std::size_t>(r * kCols + col),
                                                      static_cast<std::size_t>(cols)));
      }
      EXPECT_EQ(zeros, std::llround(0.75 * static_cast<double>(rows * cols))) << row << ", " << col;
    }
  }
}

TEST(Prune, OneThresholdForTheWholeMatrix) {
  constexpr std::int64_t kRows = 200, kCols = 300;
  const std::vector<std::uint16_t> before = dense_weights(kRows, kCols);
  MagnitudeHistogram histogram;
  histogram.add(std::span(before).first(kCols * 50));
  histogram.add(std::span(before).subspan(kCols * 50));
  const auto threshold = histogram.threshold(0.6);
  std::vector<std::uint16_t> whole = before, parts = before;
  prune_rows({0.6, PruneScope::kMatrix, {}}, "w", 0, kCols, threshold, whole);
  expect_the_smallest_went(before, whole);
  EXPECT_NEAR(static_cast<double>(count_zeros(whole)), 0.6 * kRows * kCols, 20) << "ties are drawn";
  for (std::int64_t r = 0; r < kRows; r += 40) {  // in runs, as convert does it
    prune_rows({0.6, PruneScope::kMatrix, {}}, "w", r, kCols, threshold,
               std::span(parts).subspan(static_cast<std::size_t>(r * kCols), 40 * kCols));
  }
  EXPECT_EQ(parts, whole);
}

TEST(Prune, DropsExactlyTheShareOfEqualMagnitudes) {
  std::vector<std::uint16_t> same(100000, 0x3C00U);
  for (std::size_t i = 0; i < same.size(); i += 2) same[i] |= 0x8000U;
  MagnitudeHistogram histogram;
  histogram.add(same);
  std::vector<std::uint16_t> by_row = same, by_matrix = same;
  prune_rows({0.3, PruneScope::kRow, {}}, "w", 0, 100, {}, by_row);
  EXPECT_EQ(count_zeros(by_row), 30000);
  prune_rows({0.3, PruneScope::kMatrix, {}}, "w", 0, 100, histogram.threshold(0.3), by_matrix);
  EXPECT_NEAR(static_cast<double>(count_zeros(by_matrix)), 30000, 600);  // 4 standard deviations of a draw
}

TEST(Prune, CountsZerosThatAreThereFirst) {
  std::vector<std::uint16_t> values = make_weights({"", 10, 100, Mask::kRandom, 0.9}, DType::kF16);
  const std::vector<std::uint16_t> before = values;
  prune_rows({0.5, PruneScope::kRow, {}}, "w", 0, 100, {}, values);
  EXPECT_EQ(values, before) << "a given mask stays as it is";
}

TEST(Prune, FakesAMaskThatDependsOnSeedAndNameAlone) {
  const std::vector<std::uint16_t> before = dense_weights(100, 1000);
  const auto faked = [&](std::uint64_t seed, const char* name) {
    std::vector<std::uint16_t> values = before;
    prune_rows({0.8, PruneScope::kRow, seed}, name, 0, 1000, {}, values);
    return values;
  };
  EXPECT_NEAR(static_cast<double>(count_zeros(faked(1, "a"))) / 1e5, 0.8, 0.006);
  EXPECT_EQ(faked(1, "a"), faked(1, "a"));
  EXPECT_NE(faked(1, "a"), faked(2, "a"));
  EXPECT_NE(faked(1, "a"), faked(1, "b"));
}

ModelSpec four_layers() {
  ModelSpec spec;
  spec.name = "four";
  spec.num_layers = 4;
  spec.hidden_dim = spec.embed_dim = 64;
  spec.ffn_dim = 256;
  spec.num_heads = spec.num_kv_heads = 4;
  spec.head_dim = 16;
  spec.vocab_size = 100;
  spec.max_positions = 32;
  return spec;
}

const TensorSpec& tensor_named(const std::vector<TensorSpec>& tensors, std::string_view name) {
  return *std::ranges::find(tensors, name, &TensorSpec::name);
}

TEST(FormatRules, LaterOverridesWinAndOtherTensorsStayDense) {
  FormatConfig config;
  apply_config(config, R"(
format: bitmap
sparsity: 0.8
overrides:
  - tensors: fc1,fc2
    format: tiled_csl
  - layers: 0,2-3
    sparsity: 0.5
    prune_per: matrix
  - layers: "3"
    tensors: fc2
    format: dense
    sparsity: 0
)",
               "rules.yaml");
  const ModelSpec spec = four_layers();
  const std::vector<TensorSpec> tensors = model_tensors(spec);
  const auto rule = [&](const char* name) { return rule_for(config, spec, tensor_named(tensors, name)); };
  const MatrixRule q1 = rule("decoder.layers.1.self_attn.q_proj.weight");
  EXPECT_EQ(q1.encoding, Encoding::kBitmap);
  EXPECT_EQ(q1.prune, (PruneRule{0.8, PruneScope::kRow, {}}));
  const MatrixRule fc1 = rule("decoder.layers.2.fc1.weight");
  EXPECT_EQ(fc1.encoding, Encoding::kTiledCsl);
  EXPECT_EQ(fc1.prune, (PruneRule{0.5, PruneScope::kMatrix, {}}));
  const MatrixRule fc2 = rule("decoder.layers.3.fc2.weight");
  EXPECT_EQ(fc2.encoding, Encoding::kDense);
  EXPECT_EQ(fc2.prune.sparsity, 0);
  for (const char* name : {"decoder.embed_tokens.weight", "decoder.layers.1.fc1.bias",
                           "decoder.layers.1.final_layer_norm.weight"}) {
    EXPECT_EQ(rule(name).encoding, Encoding::kDense) << name;
    EXPECT_EQ(rule(name).prune.sparsity, 0) << name;
  }
}

TEST(FormatRules, NamesWhatAModelDoesNotHave) {
  const ModelSpec spec = four_layers();
  const std::vector<TensorSpec> tensors = model_tensors(spec);
  const auto message = [&](const FormatOverride& change) {
    FormatConfig config;
    config.overrides = {change};
    const Error error =
        error_of([&] { (void)rule_for(config, spec, tensor_named(tensors, "decoder.layers.1.fc1.weight")); });
    EXPECT_EQ(error.code(), Code::kInvalidArgument);
    return std::string(error.what());
  };
  EXPECT_THAT(message({.layers = "0-4", .tensors = {}}),
              HasSubstr("there is no layer 4; four has layers 0 to 3"));
  EXPECT_THAT(message({.layers = "2-1", .tensors = {}}), HasSubstr("2 comes after 1"));
  EXPECT_THAT(message({.layers = "first", .tensors = {}}), HasSubstr("'first' is no layer's number"));
  EXPECT_THAT(message({.layers = "0,", .tensors = {}}), HasSubstr("'' is no layer's number"));
  EXPECT_THAT(message({.layers = {}, .tensors = "fc3"}), HasSubstr("'fc3' is no matrix of a decoder layer"));
}

}  // namespace
}  // namespace sluice::kernels
