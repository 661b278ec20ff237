// Perplexity of the bundled trained model, against the figure of tests/golden/SOURCE.md.
#include "tests/e2e/perplexity.h"

#include <gtest/gtest.h>

#include "tests/support/paths.h"

namespace sluice {
namespace {

TEST(Perplexity, OfTheSparseModelIsWhatTransformersComputes) {
  EXPECT_NEAR(testing::books_perplexity(testing::golden("tiny-opt-books-sparse80")), 37.048, 0.037);
}

}  // namespace
}  // namespace sluice
