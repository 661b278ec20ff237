// The bundled tokenizer of the tiny OPT: reference ids, round trips, incremental decoding, hostile inputs.
#include "core/tokenizer/tokenizer.h"

#include <chrono>
#include <fstream>
#include <iterator>
#include <random>
#include <thread>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/tokenizer/utf8.h"
#include "tests/support/paths.h"

namespace sluice {
namespace {

using Ids = std::vector<std::int32_t>;

std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.is_open()) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

const Tokenizer& tiny() {
  static const auto tokenizer = open_tokenizer(sluice::testing::golden("tiny-opt-books-sparse80"));
  return *tokenizer;
}

std::string bytes_of(const Tokenizer& tokenizer, const Ids& ids) {
  std::string bytes;
  for (const std::int32_t id : ids) bytes += tokenizer.token_bytes(id);
  return bytes;
}

TEST(Tokenizer, MatchesTheReferencePrompts) {
  const auto cases = nlohmann::json::parse(read_text(sluice::testing::golden("tiny-opt-prompts.json")));
  ASSERT_FALSE(cases.empty());
  for (const auto& c : cases) {
    const auto text = c["text"].get<std::string>();
    EXPECT_EQ(tiny().encode(text, /*add_bos=*/true), c["ids"].get<Ids>()) << text;
  }
}

// The long prompts are 3600 tokens of book text, cut where a piece ends: their text has the same ids.
TEST(Tokenizer, MatchesTheReferenceOnBookText) {
  const auto golden =
      nlohmann::json::parse(read_text(sluice::testing::golden("tiny-opt-books-sparse80-long.golden.json")));
  std::size_t num_tokens = 0;
  for (const auto& c : golden["cases"]) {
    const auto ids = c["prompt_ids"].get<Ids>();
    EXPECT_EQ(tiny().encode(tiny().decode(ids), /*add_bos=*/true), ids);
    num_tokens += ids.size();
  }
  EXPECT_GT(num_tokens, 3000U);
}

// 65113 ids; the perplexity that SOURCE.md gives is over 127 windows of 512 of them.
TEST(Tokenizer, CountsTheTokensOfTheValidationText) {
  const std::string text = read_text(sluice::testing::golden("books-val.txt"));
  constexpr std::string_view kSeparator = "\n<|endoftext|>\n";
  std::size_t num_tokens = 0, start = 0;
  while (start <= text.size()) {
    const std::size_t end = std::min(text.find(kSeparator, start), text.size());
    const std::string_view piece = std::string_view(text).substr(start, end - start);
    const Ids ids = tiny().encode(piece, /*add_bos=*/true);
    EXPECT_EQ(tiny().decode(ids), piece);
    num_tokens += ids.size();
    start = end + kSeparator.size();
  }
  EXPECT_EQ(num_tokens, 65113U);
  EXPECT_EQ(num_tokens / 512, 127U);
}

TEST(Tokenizer, KnowsItsSpecialTokens) {
  EXPECT_EQ(tiny().bos_id(), 2);
  EXPECT_EQ(tiny().eos_id(), 2);
  EXPECT_EQ(tiny().vocab_size(), 4096);
  EXPECT_TRUE(tiny().is_special(1));
  EXPECT_TRUE(tiny().is_special(2));
  EXPECT_FALSE(tiny().is_special(4));
  EXPECT_FALSE(tiny().is_special(-1));
  EXPECT_FALSE(tiny().is_special(4096));
  EXPECT_EQ(tiny().token_bytes(2), "");
  EXPECT_EQ(tiny().token_bytes(-1), "");
  EXPECT_EQ(tiny().token_bytes(4096), "");
  EXPECT_EQ(tiny().token_bytes(4), "!");
}

TEST(Tokenizer, FindsSpecialTokensInTheText) {
  const Ids a = tiny().encode("One day", false), b = tiny().encode(" two", false);
  Ids expected = a;
  expected.insert(expected.end(), {2, 2, 1});
  expected.insert(expected.end(), b.begin(), b.end());
  EXPECT_EQ(tiny().encode("One day</s></s><pad> two", false), expected);
  EXPECT_EQ(tiny().decode(expected), "One day two");
  EXPECT_EQ(tiny().encode("</s>", true), (Ids{2, 2}));
  // tokenizer_config.json names </s> and <pad>; <s> and <unk> are plain text then.
  EXPECT_EQ(bytes_of(tiny(), tiny().encode("<s><unk></s", false)), "<s><unk></s");
}

TEST(Tokenizer, EncodesTheEmptyText) {
  EXPECT_EQ(tiny().encode("", true), Ids{2});
  EXPECT_EQ(tiny().encode("", false), Ids{});
  EXPECT_EQ(tiny().decode({}), "");
}

TEST(Tokenizer, KeepsEveryByteOfRandomInput) {
  std::mt19937 rng(30);
  for (int round = 0; round < 2000; ++round) {
    std::string text(rng() % 200, '\0');
    // Alternate between all bytes and those of which words, spaces and characters are made.
    const std::string_view some = "etaoin  '\n\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";
    for (char& c : text) c = round % 2 == 0 ? static_cast<char>(rng()) : some[rng() % some.size()];
    const Ids ids = tiny().encode(text, false);
    ASSERT_EQ(bytes_of(tiny(), ids), text) << "round " << round;
    if (valid_utf8_prefix(text) == text.size()) {
      ASSERT_EQ(tiny().decode(ids), text);
    }
  }
}

TEST(Tokenizer, DecodesInvalidBytesAsReplacementCharacters) {
  EXPECT_EQ(tiny().decode(tiny().encode("a\xFFz", false)), "a\uFFFDz");
  EXPECT_EQ(tiny().decode(tiny().encode("a\xE2\x82", false)), "a\uFFFD");
  EXPECT_EQ(tiny().decode(tiny().encode("\xE2\x82z", false)), "\uFFFDz");
  EXPECT_EQ(tiny().decode(tiny().encode("\xF0\x9F\xF0\x9F\x98\x80", false)), "\uFFFD\U0001F600");
}

TEST(IncrementalDecoder, NeverEmitsHalfACharacter) {
  std::mt19937 rng(31);
  const std::string text =
      "caf\u00E9 \u20AC 5 \U0001F600\U0001F468\u200D\U0001F469 \u4E2D\u6587 \xFF end \xE2\x82";
  std::vector<Ids> sequences = {tiny().encode(text, true)};
  for (int i = 0; i < 200; ++i) {  // tokens in any order, so that characters break in any way
    Ids ids(50);
    for (std::int32_t& id : ids) id = static_cast<std::int32_t>(rng() % 400);
    sequences.push_back(ids);
  }
  for (const Ids& ids : sequences) {
    IncrementalDecoder decoder(tiny());
    std::string joined;
    for (const std::int32_t id : ids) {
      const std::string part = decoder.push(id);
      ASSERT_EQ(valid_utf8_prefix(part), part.size());
      joined += part;
    }
    joined += decoder.finish();
    ASSERT_EQ(joined, tiny().decode(ids));
  }
}

TEST(IncrementalDecoder, WaitsForTheRestOfACharacter) {
  IncrementalDecoder decoder(tiny());
  const Ids euro = {tiny().encode("\xE2", false)[0], tiny().encode("\x82", false)[0],
                    tiny().encode("\xAC", false)[0]};
  EXPECT_EQ(decoder.push(euro[0]), "");
  EXPECT_EQ(decoder.push(euro[1]), "");
  EXPECT_EQ(decoder.push(2), "");  // a special token in between is no text
  EXPECT_EQ(decoder.push(euro[2]), "\u20AC");
  EXPECT_EQ(decoder.push(euro[0]), "");
  EXPECT_EQ(decoder.push(tiny().encode("x", false)[0]), "\uFFFDx");
  EXPECT_EQ(decoder.push(euro[0]), "");
  EXPECT_EQ(decoder.finish(), "\uFFFD");
  EXPECT_EQ(decoder.finish(), "");
}

// One piece of a megabyte: quadratic merging would take minutes. Nothing here may depend on a clock finer
// than that.
TEST(Tokenizer, LongRunsAreNotQuadratic) {
  const auto start = std::chrono::steady_clock::now();
  std::string mixed;
  for (int i = 0; mixed.size() < (1 << 20); ++i) mixed += "theinganderonre"[i * 7 % 15];
  for (const std::string& text :
       {std::string(1 << 20, 'a'), std::string(1 << 20, ' '), std::string(1 << 20, '\n'),
        std::string(1 << 20, '='), std::string(1 << 20, '\xFF'), mixed}) {
    EXPECT_EQ(bytes_of(tiny(), tiny().encode(text, false)), text);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

TEST(Tokenizer, IsSafeToShareBetweenThreads) {
  const std::string text = read_text(sluice::testing::golden("books-val.txt")).substr(0, 50000);
  const Ids expected = tiny().encode(text, true);
  std::vector<Ids> got(4);
  {
    std::vector<std::jthread> threads;
    for (Ids& ids : got) threads.emplace_back([&] { ids = tiny().encode(text, true); });
  }
  for (const Ids& ids : got) EXPECT_EQ(ids, expected);
}

}  // namespace
}  // namespace sluice
