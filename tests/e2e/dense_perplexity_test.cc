// The same of the dense model it was pruned from, which is not bundled; and what quantised weights make of
// it.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/e2e/perplexity.h"
#include "tests/support/paths.h"

namespace sluice {
namespace {

constexpr double kDensePerplexity = 40.322;  // by transformers, in fp32

class DensePerplexity : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(checkpoint_ / "config.json")) {
      GTEST_SKIP() << "no dense model at '" << checkpoint_.string() << "'; SLUICE_DATA names its folder";
    }
  }
  double with(Encoding encoding) const {
    kernels::FormatConfig formats;
    formats.format = encoding;
    const double perplexity = testing::books_perplexity(checkpoint_, formats);
    RecordProperty(std::string(encoding_name(encoding)),
                   fmt::format("{:.3f}", perplexity));  // --gtest_output=json
    return perplexity;
  }

  const std::filesystem::path checkpoint_ = testing::data_dir() / "tiny-opt-books";
};

TEST_F(DensePerplexity, IsWhatTransformersComputes) {
  EXPECT_NEAR(with(Encoding::kDense), kDensePerplexity, 0.040);
}

TEST_F(DensePerplexity, WithEightBitsIsWithinHalfAPercent) {
  EXPECT_NEAR(with(Encoding::kInt8), kDensePerplexity, 0.005 * kDensePerplexity);
}

TEST_F(DensePerplexity, WithFourBitsIsWithinThreePercent) {
  EXPECT_NEAR(with(Encoding::kInt4G64), kDensePerplexity, 0.03 * kDensePerplexity);
}

}  // namespace
}  // namespace sluice
