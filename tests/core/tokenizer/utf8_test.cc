#include "core/tokenizer/utf8.h"

#include <gtest/gtest.h>

#include "core/tokenizer/byte_alphabet.h"

namespace sluice {
namespace {

TEST(Utf8, RoundTripsEveryCodePointButSurrogates) {
  for (std::uint32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    append_utf8(text, c);
    const Utf8Step step = next_utf8(text + "x");
    ASSERT_EQ(step.kind, Utf8Kind::kValid) << c;
    ASSERT_EQ(step.length, text.size()) << c;
    ASSERT_EQ(step.code_point, c);
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      ASSERT_EQ(next_utf8(text.substr(0, cut)).kind, Utf8Kind::kIncomplete) << c;
      ASSERT_EQ(next_utf8(text.substr(0, cut) + "x").kind, Utf8Kind::kInvalid) << c;
    }
  }
}

TEST(Utf8, RefusesWhatRfc3629Forbids) {
  for (const char* bad :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xE0\x9F\xBF", "\xED\xA0\x80",
        "\xED\xBF\xBF", "\xF0\x80\x80\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80", "\xFF"}) {
    EXPECT_EQ(next_utf8(bad).kind, Utf8Kind::kInvalid) << ::testing::PrintToString(bad);
    EXPECT_EQ(next_utf8(bad).length, 1U) << ::testing::PrintToString(bad);
    EXPECT_EQ(valid_utf8_prefix(std::string("0123456789") + bad), 10U);
  }
}

TEST(Utf8, FindsTheValidPrefixAcrossWordBoundaries) {
  for (std::size_t lead = 0; lead < 20; ++lead) {
    const std::string text = std::string(lead, 'a') + "\xE2\x82\xAC" + std::string(lead, 'b');
    EXPECT_EQ(valid_utf8_prefix(text), text.size());
    EXPECT_EQ(valid_utf8_prefix(text + "\xE2\x82"), text.size());
    EXPECT_EQ(valid_utf8_prefix(text + "\xFFzzzzzzzzz"), text.size());
  }
}

TEST(ByteAlphabet, IsOneToOne) {
  std::string seen;
  for (int byte = 0; byte < 256; ++byte) {
    std::string symbol;
    append_utf8(symbol, alphabet_code_point(static_cast<std::uint8_t>(byte)));
    ASSERT_EQ(alphabet_to_bytes(symbol), std::string(1, static_cast<char>(byte)));
    EXPECT_EQ(seen.find(symbol), std::string::npos);
    seen += symbol;
  }
  EXPECT_EQ(alphabet_to_bytes("\xC4\xA0the"), " the");  // U+0120
  EXPECT_EQ(alphabet_to_bytes("\xC4\x8A"), "\n");       // U+010A
  EXPECT_EQ(alphabet_to_bytes(" "), std::nullopt);
  EXPECT_EQ(alphabet_to_bytes("\xE2\x82\xAC"), std::nullopt);
  EXPECT_EQ(alphabet_to_bytes("\xFF"), std::nullopt);
}

}  // namespace
}  // namespace sluice
