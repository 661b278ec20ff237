// OPT's own vocabulary, which is optional data: ids from its SOURCE page, and round trips of real text.
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
  void SetUp() override {
    const auto folder = sluice::testing::data_dir() / "opt_tokenizer";
    if (!has_tokenizer(folder))
      GTEST_SKIP() << "no OPT tokenizer in " << folder << "; SLUICE_DATA names its parent";
    tokenizer_ = open_tokenizer(folder);
  }
  std::unique_ptr<Tokenizer> tokenizer_;
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
  const auto path = sluice::testing::data_dir() / "corpus" / "wikitext2_valid.txt";
  std::ifstream in(path, std::ios::binary);
  if (!in.is_open()) GTEST_SKIP() << "no " << path;
  std::string text{std::istreambuf_iterator<char>(in), {}};
  // <unk> is one of the vocabulary's special tokens, and stands in this corpus as a word.
  for (std::size_t at = text.find("<unk>"); at != std::string::npos; at = text.find("<unk>", at)) {
    text.replace(at, 5, "unk");
  }
  const Ids ids = tokenizer_->encode(text, false);
  EXPECT_EQ(tokenizer_->decode(ids), text);
  EXPECT_LT(ids.size(), text.size() / 4);  // English has more than four bytes a token
}

}  // namespace
}  // namespace sluice
