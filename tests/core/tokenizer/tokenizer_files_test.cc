// What the tokenizer's files may hold: special tokens from each of them, and an error for every kind of
// damage.
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/tokenizer/byte_alphabet.h"
#include "core/tokenizer/byte_level_bpe.h"
#include "core/tokenizer/utf8.h"

namespace sluice {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using Ids = std::vector<std::int32_t>;

/// Bytes at 4..259, then the tokens "he" and " he"; </s> is 2.
json small_vocab() {
  json vocab = {{"<s>", 0}, {"<pad>", 1}, {"</s>", 2}, {"<unk>", 3}, {"he", 260}, {"\u0120he", 261}};
  for (int byte = 0; byte < 256; ++byte) {
    std::string symbol;
    append_utf8(symbol, alphabet_code_point(static_cast<std::uint8_t>(byte)));
    vocab[symbol] = 4 + byte;
  }
  return vocab;
}

BpeFiles small_files() {
  BpeFiles files;
  files.folder = "dir";
  files.vocab = small_vocab().dump();
  files.merges = "#version: 0.2\nh e\n\u0120 he\n";
  return files;
}

Ids encode(const BpeFiles& files, std::string_view text) { return ByteLevelBpe(files).encode(text, false); }

void expect_refused(Code code, const std::string& message, const std::function<void(BpeFiles&)>& damage) {
  BpeFiles files = small_files();
  damage(files);
  try {
    const ByteLevelBpe tokenizer(files);
    ADD_FAILURE() << "accepted; expected: " << message;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_THAT(e.what(), HasSubstr(message));
    EXPECT_FALSE(e.fix().empty());
  }
}

TEST(TokenizerFiles, SmallVocabularyMerges) {
  EXPECT_EQ(encode(small_files(), "he he h"), (Ids{260, 261, 4 + ' ', 4 + 'h'}));
}

TEST(TokenizerFiles, AcceptsMergesWithoutVersionAndWithCarriageReturns) {
  BpeFiles files = small_files();
  files.merges = "h e\r\n\u0120 he";
  EXPECT_EQ(encode(files, "he he"), (Ids{260, 261}));
}

TEST(TokenizerFiles, WithoutConfigTheWellKnownTokensAreSpecial) {
  EXPECT_EQ(encode(small_files(), "<s>he<unk></s><mask>").size(), 4U + 6U);
  EXPECT_EQ(ByteLevelBpe(small_files()).bos_id(), 2);
}

TEST(TokenizerFiles, TokenizerConfigNamesTokens) {
  BpeFiles files = small_files();
  files.special.tokenizer_config =
      R"({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": null,
    "additional_special_tokens": ["<|a|>", {"content": "<|b|>"}], "add_prefix_space": false,
    "added_tokens_decoder": {"300": {"content": "<|a|>", "special": true}, "302": {"content": "<|b|>"},
                             "310": {"content": "<|word|>", "special": false}}})";
  const ByteLevelBpe tokenizer(files);
  EXPECT_EQ(tokenizer.bos_id(), 0);
  EXPECT_EQ(tokenizer.eos_id(), 2);
  EXPECT_EQ(tokenizer.vocab_size(), 311);
  EXPECT_EQ(tokenizer.encode("<|a|>he<|word|><|b|>", true), (Ids{0, 300, 260, 310, 302}));
  EXPECT_TRUE(tokenizer.is_special(300));
  EXPECT_TRUE(tokenizer.is_special(302));
  EXPECT_FALSE(tokenizer.is_special(310));
  EXPECT_EQ(tokenizer.decode({0, 300, 260, 310, 302, 305}), "he<|word|>");
  EXPECT_EQ(tokenizer.encode("<pad>", false).size(), 5U);  // named null: plain text
}

TEST(TokenizerFiles, SpecialTokensMapAndAddedTokensNameTokens) {
  BpeFiles files = small_files();
  files.special.special_tokens_map = R"({"eos_token": {"content": "<|end|>"}, "bos_token": "</s>"})";
  files.special.added_tokens = R"({"<|end|>": 262, "<|endless|>": 263})";
  const ByteLevelBpe tokenizer(files);
  EXPECT_EQ(tokenizer.eos_id(), 262);
  EXPECT_TRUE(tokenizer.is_special(262));
  EXPECT_FALSE(tokenizer.is_special(263));
  EXPECT_EQ(tokenizer.encode("<|endless|><|end|>", false), (Ids{263, 262}));
}

TEST(TokenizerFiles, TokenizerConfigCountsBeforeTheMap) {
  BpeFiles files = small_files();
  files.special.tokenizer_config = R"({"bos_token": "<s>"})";
  files.special.special_tokens_map = R"({"bos_token": "<pad>"})";
  EXPECT_EQ(ByteLevelBpe(files).bos_id(), 0);
}

TEST(TokenizerFiles, LongestAddedTokenWins) {
  BpeFiles files = small_files();
  files.special.added_tokens = R"({"<x>": 262, "<x>y": 263, "<x>yz": 264})";
  EXPECT_EQ(encode(files, "<x>yzhe<x>y<x><x"), (Ids{264, 260, 263, 262, 4 + '<', 4 + 'x'}));
}

TEST(TokenizerFiles, AMissingByteBecomesTheUnknownToken) {
  BpeFiles files = small_files();
  json vocab = small_vocab();
  vocab.erase("z");
  files.vocab = vocab.dump();
  files.special.tokenizer_config = R"({"unk_token": "<unk>", "bos_token": "</s>"})";
  EXPECT_EQ(encode(files, "hez"), (Ids{260, 3}));
}

TEST(TokenizerFiles, RefusesADamagedVocabulary) {
  const auto vocab_as = [](const std::string& text) { return [text](BpeFiles& f) { f.vocab = text; }; };
  expect_refused(Code::kCorrupt, "dir/vocab.json: ", vocab_as("{\"a\": 1"));
  expect_refused(Code::kCorrupt, "line 2, column", vocab_as("{\"a\": 1,\n}"));
  expect_refused(Code::kCorrupt, "number overflow", vocab_as("{\"a\": 1e400}"));
  expect_refused(Code::kCorrupt, "is no JSON object", vocab_as("[1]"));
  expect_refused(Code::kCorrupt, "dir/vocab.json: no tokens", vocab_as("{}"));
  expect_refused(Code::kCorrupt, "key 'a' appears twice", vocab_as("{\"a\": 1, \"a\": 2}"));
  for (const char* id : {"-1", "1.5", "\"7\"", "1048576", "18446744073709551615", "null"}) {
    expect_refused(Code::kCorrupt, fmt::format("id of 'q' is {}", id),
                   vocab_as(fmt::format("{{\"q\": {}}}", id)));
  }
  expect_refused(Code::kCorrupt, "both have id 260", [](BpeFiles& f) {
    json vocab = small_vocab();
    vocab["hh"] = 260;
    f.vocab = vocab.dump();
  });
  expect_refused(Code::kCorrupt, "byte 0x7a ('z') has no token", [](BpeFiles& f) {
    json vocab = small_vocab();
    vocab.erase("z");
    f.vocab = vocab.dump();
  });
}

TEST(TokenizerFiles, RefusesDamagedMergesWithTheirLine) {
  const auto merges_as = [](const std::string& text) { return [text](BpeFiles& f) { f.merges = text; }; };
  const std::string shape = "is not two symbols with a space between";
  expect_refused(Code::kCorrupt, "dir/merges.txt:3: 'he' " + shape, merges_as("#version: 0.2\nh e\nhe\n"));
  expect_refused(Code::kCorrupt, "merges.txt:1: 'h e x' " + shape, merges_as("h e x"));
  expect_refused(Code::kCorrupt, "merges.txt:1: ' e' " + shape, merges_as(" e"));
  expect_refused(Code::kCorrupt, "merges.txt:1: 'h ' " + shape, merges_as("h "));
  expect_refused(Code::kCorrupt, "merges.txt:2: '#version:", merges_as("h e\n#version: 0.2 x\n"));
  expect_refused(Code::kCorrupt, "merges.txt:2: 'xh' is not in vocab.json", merges_as("h e\nxh e\n"));
  expect_refused(Code::kCorrupt, "merges.txt:1: 'ab' is not in vocab.json", merges_as("a b\n"));
}

TEST(TokenizerFiles, RefusesDamagedSpecialTokens) {
  const auto config_as = [](const std::string& text) {
    return [text](BpeFiles& f) { f.special.tokenizer_config = text; };
  };
  expect_refused(Code::kCorrupt, "dir/tokenizer_config.json: ", config_as("{"));
  expect_refused(Code::kCorrupt, "is no JSON object", config_as("3"));
  expect_refused(Code::kCorrupt, "bos_token is neither", config_as(R"({"bos_token": 3})"));
  expect_refused(Code::kCorrupt, "eos_token is neither", config_as(R"({"eos_token": {"content": ""}})"));
  expect_refused(Code::kUnsupported, "add_prefix_space", config_as(R"({"add_prefix_space": true})"));
  expect_refused(Code::kCorrupt, "added_tokens_decoder is not", config_as(R"({"added_tokens_decoder": []})"));
  expect_refused(Code::kCorrupt, "added_tokens_decoder.x is not a token id",
                 config_as(R"({"added_tokens_decoder": {"x": "y"}})"));
  expect_refused(Code::kCorrupt, "is not a list", config_as(R"({"additional_special_tokens": "a"})"));
  expect_refused(Code::kInvalidArgument, "bos_token '<q>' is in neither",
                 config_as(R"({"bos_token": "<q>"})"));
  expect_refused(Code::kCorrupt, "'he' has id 7, but 260",
                 config_as(R"({"added_tokens_decoder": {"7": "he"}})"));
  expect_refused(Code::kCorrupt, "added token 'xx' has id 260",
                 config_as(R"({"bos_token": "</s>", "added_tokens_decoder": {"260": "xx"}})"));
  expect_refused(Code::kCorrupt, "'xx' has two ids", [](BpeFiles& f) {
    f.special.added_tokens = R"({"xx": 300})";
    f.special.tokenizer_config = R"({"added_tokens_decoder": {"301": "xx"}})";
  });
  expect_refused(Code::kCorrupt, "id of 'xx' is -4",
                 [](BpeFiles& f) { f.special.added_tokens = R"({"xx": -4})"; });
  expect_refused(Code::kCorrupt, "a token is empty",
                 [](BpeFiles& f) { f.special.added_tokens = R"({"": 300})"; });
  expect_refused(Code::kInvalidArgument, "no file names the bos_token, and vocab.json has no </s>",
                 [](BpeFiles& f) {
                   json vocab = small_vocab();
                   vocab.erase("</s>");
                   f.vocab = vocab.dump();
                 });
}

class OpenTokenizer : public ::testing::Test {
 protected:
  OpenTokenizer()
      : folder_(std::filesystem::temp_directory_path() / fmt::format("sluice_tokenizer_{}", getpid())) {
    std::filesystem::create_directories(folder_);
  }
  ~OpenTokenizer() override { std::filesystem::remove_all(folder_); }
  void write(const char* name, const std::string& text) const { std::ofstream(folder_ / name) << text; }

  std::filesystem::path folder_;
};

TEST_F(OpenTokenizer, ReadsAFolder) {
  EXPECT_FALSE(has_tokenizer(folder_));
  write("vocab.json", small_files().vocab);
  EXPECT_FALSE(has_tokenizer(folder_));
  write("merges.txt", small_files().merges);
  EXPECT_TRUE(has_tokenizer(folder_));
  EXPECT_EQ(open_tokenizer(folder_)->bos_id(), 2);
  write("tokenizer_config.json", R"({"bos_token": "<s>"})");
  EXPECT_EQ(open_tokenizer(folder_)->bos_id(), 0);
}

TEST_F(OpenTokenizer, SaysWhichFileIsMissing) {
  for (const char* missing : {"vocab.json", "merges.txt"}) {
    try {
      open_tokenizer(folder_);
      ADD_FAILURE();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kNotFound);
      EXPECT_THAT(e.what(), HasSubstr((folder_ / missing).string()));
      EXPECT_THAT(e.fix(), HasSubstr("--tokenizer"));
    }
    write(missing, small_files().vocab);
  }
}

}  // namespace
}  // namespace sluice
