// OPT's own vocabulary: ids from its SOURCE page, and round trips of real text.
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>

#include "core/tokenizer/tokenizer.h"
#include "tests/support/paths.h"

namespace sluice {
namespace {

using Ids = std::vector<std::int32_t>;

class OptTokenizer : public ::testing::Test {
 protected:
  std::unique_ptr<Tokenizer> tokenizer_ = open_tokenizer(testing::golden("opt_tokenizer"));
};

TEST_F(OptTokenizer, MatchesTheReferenceIds) {
  EXPECT_EQ(tokenizer_->encode("Hello world", true), (Ids{2, 31414, 232}));
  EXPECT_EQ(tokenizer_->encode("Paris is the capital city of", true), (Ids{2, 32826, 16, 5, 812, 343, 9}));
  EXPECT_EQ(tokenizer_->encode("Hello, my dog is cute", true), (Ids{2, 31414, 6, 127, 2335, 16, 11962}));
  EXPECT_EQ(tokenizer_->encode("\n", false), Ids{50118});
  EXPECT_EQ(tokenizer_->vocab_size(), 50265);
  EXPECT_EQ(tokenizer_->bos_id(), 2);
  EXPECT_EQ(tokenizer_->eos_id(), 2);
}

TEST_F(OptTokenizer, RoundTripsRealText) {
  std::ifstream in(testing::golden("books-val.txt"), std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  ASSERT_GT(text.size(), 200000U);
  const Ids ids = tokenizer_->encode(text, false);
  EXPECT_EQ(tokenizer_->decode(ids), text);
  EXPECT_LT(ids.size(), text.size() / 3);  // English has more than three bytes a token
}

}  // namespace
}  // namespace sluice
