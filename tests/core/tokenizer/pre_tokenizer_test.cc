#include "core/tokenizer/pre_tokenizer.h"

#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sluice {
namespace {

using ::testing::ElementsAre;
using namespace std::string_view_literals;

std::vector<std::string> pieces(std::string_view text) {
  static const PreTokenizer pre_tokenizer;
  PreTokenizer::Cutter cutter(pre_tokenizer);
  cutter.start(text);
  std::vector<std::string> all;
  for (std::string_view piece = cutter.next(); !piece.empty(); piece = cutter.next()) all.emplace_back(piece);
  EXPECT_TRUE(cutter.next().empty());
  return all;
}

TEST(PreTokenizer, CutsWordsNumbersAndSigns) {
  EXPECT_THAT(pieces("Hello, my dog is 12 years old!"),
              ElementsAre("Hello", ",", " my", " dog", " is", " 12", " years", " old", "!"));
  EXPECT_THAT(pieces("a1b22 ?!x"), ElementsAre("a", "1", "b", "22", " ?!", "x"));
}

TEST(PreTokenizer, CutsContractionsInLowerCaseOnly) {
  EXPECT_THAT(pieces("it's we're I'm you'll he'd don't I've"),
              ElementsAre("it", "'s", " we", "'re", " I", "'m", " you", "'ll", " he", "'d", " don", "'t",
                          " I", "'ve"));
  EXPECT_THAT(pieces("IT'S"), ElementsAre("IT", "'", "S"));
  EXPECT_THAT(pieces("'tis"), ElementsAre("'t", "is"));
  EXPECT_THAT(pieces(" 'tis"), ElementsAre(" '", "tis"));
}

TEST(PreTokenizer, LeavesTheLastSpaceOfARunToTheWord) {
  EXPECT_THAT(pieces("a   b"), ElementsAre("a", "  ", " b"));
  EXPECT_THAT(pieces("a  "), ElementsAre("a", "  "));
  EXPECT_THAT(pieces("a\n\nb"), ElementsAre("a", "\n", "\n", "b"));
  EXPECT_THAT(pieces("a \n b"), ElementsAre("a", " \n", " b"));
  EXPECT_THAT(pieces(" "), ElementsAre(" "));
  EXPECT_THAT(pieces(""), ElementsAre());
}

TEST(PreTokenizer, KnowsUnicodeLettersNumbersAndSpaces) {
  EXPECT_THAT(pieces("na\u00EFve \u4E2D\u6587 \u0663\u0664 \u00BD\u20AC"),
              ElementsAre("na\u00EFve", " \u4E2D\u6587", " \u0663\u0664", " \u00BD", "\u20AC"));
  EXPECT_THAT(pieces("a\u00A0b\u2003c\u3000 d"),
              ElementsAre("a", "\u00A0", "b", "\u2003", "c", "\u3000", " d"));  // only U+0020 joins a word
  EXPECT_THAT(pieces("e\u0301"), ElementsAre("e", "\u0301"));  // a combining mark is no letter
  EXPECT_THAT(pieces("a\u0085b"), ElementsAre("a", "\u0085", "b"));
  EXPECT_THAT(pieces("a \u180E"), ElementsAre("a", " \u180E"));  // not a space since Unicode 6.3
  EXPECT_THAT(pieces("\u200B\u200B"), ElementsAre("\u200B\u200B"));
  EXPECT_THAT(pieces("a\x1C"), ElementsAre("a", "\x1C"));
  EXPECT_THAT(pieces(std::string_view("a\0b", 3)), ElementsAre("a", std::string(1, '\0'), "b"));
}

TEST(PreTokenizer, KeepsInvalidBytesAsPieces) {
  EXPECT_THAT(pieces("ab\xFF\xFE\x63"), ElementsAre("ab", "\xFF\xFE", "c"));
  EXPECT_THAT(pieces("a  \xE2\x82"), ElementsAre("a", "  ", "\xE2\x82"));
  EXPECT_THAT(pieces("\xED\xA0\x80"), ElementsAre("\xED\xA0\x80"));
}

TEST(PreTokenizer, CoversEveryTextWithoutGaps) {
  std::mt19937 rng(20);
  const std::string_view alphabet = "a'sZ9 \n\t.,\xC3\xA9\xE2\x82\xAC\xFF\x80\0"sv;
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    const std::size_t size = rng() % 40;
    for (std::size_t i = 0; i < size; ++i) text += alphabet[rng() % alphabet.size()];
    std::string joined;
    for (const std::string& piece : pieces(text)) joined += piece;
    ASSERT_EQ(joined, text);
  }
}

TEST(PreTokenizer, TakesRunsOfAnyLength) {
  for (const char c : {'a', ' ', '\n', '7', '.', '\xFF'}) {
    EXPECT_THAT(pieces(std::string(4 << 20, c)), ::testing::SizeIs(1)) << c;
  }
  EXPECT_THAT(pieces(std::string(1 << 20, ' ') + "x"), ::testing::SizeIs(2));
}

}  // namespace
}  // namespace sluice
