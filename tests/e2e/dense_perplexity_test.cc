// The same of the dense model it was pruned from, which is not bundled.
#include <gtest/gtest.h>

#include "tests/e2e/perplexity.h"
#include "tests/support/paths.h"

namespace sluice {
namespace {

TEST(Perplexity, OfTheDenseModelIsWhatTransformersComputes) {
  const std::filesystem::path checkpoint = testing::data_dir() / "tiny-opt-books";
  if (!std::filesystem::exists(checkpoint / "config.json")) {
    GTEST_SKIP() << "no dense model at '" << checkpoint.string() << "'; SLUICE_DATA names its folder";
  }
  EXPECT_NEAR(testing::books_perplexity(checkpoint), 40.322, 0.040);
}

}  // namespace
}  // namespace sluice
