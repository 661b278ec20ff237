// Any five files make a tokenizer or an Error, and a tokenizer takes any text. An input is the files and the
// text, with a line "====" between: vocab.json, merges.txt, tokenizer_config.json, special_tokens_map.json,
// added_tokens.json, text. What is missing at the end is empty.
#include <array>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/tokenizer/byte_level_bpe.h"
#include "core/tokenizer/utf8.h"
#include "tests/fuzz/outcome.h"

namespace sluice {
namespace {

using fuzz::require;

std::array<std::string_view, 6> split(std::string_view input) {
  constexpr std::string_view kSeparator = "\n====\n";
  std::array<std::string_view, 6> parts;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::size_t end = i + 1 < parts.size() ? input.find(kSeparator) : std::string_view::npos;
    parts[i] = input.substr(0, end);
    if (end == std::string_view::npos) break;
    input.remove_prefix(end + kSeparator.size());
  }
  return parts;
}

void check_text(const Tokenizer& tokenizer, std::string_view text) {
  const std::vector<std::int32_t> ids = tokenizer.encode(text, /*add_bos=*/false);
  IncrementalDecoder decoder(tokenizer);
  std::string streamed;
  for (const std::int32_t id : ids) {
    require(id >= 0 && id < tokenizer.vocab_size());
    const std::string part = decoder.push(id);
    require(valid_utf8_prefix(part) == part.size());
    streamed += part;
  }
  streamed += decoder.finish();
  require(streamed == tokenizer.decode(ids));
}

void check_pieces(std::string_view text) {
  static const PreTokenizer pre_tokenizer;
  PreTokenizer::Cutter cutter(pre_tokenizer);
  cutter.start(text);
  for (std::string_view piece = cutter.next(); !piece.empty(); piece = cutter.next()) {
    require(text.starts_with(piece));
    text.remove_prefix(piece.size());
  }
  require(text.empty());
}

}  // namespace
}  // namespace sluice

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  check_pieces(input);
  const auto [vocab, merges, config, map, added, text] = split(input);
  BpeFiles files;
  files.folder = "fuzz";
  files.vocab = vocab;
  files.merges = merges;
  files.special = {std::string(config), std::string(map), std::string(added)};
  try {
    const ByteLevelBpe tokenizer(files);
    fuzz::note_outcome("a tokenizer");
    check_text(tokenizer, text);
    check_text(tokenizer, input);
  } catch (const Error& e) {
    fuzz::note_unquoted(e.what());
  }
  return 0;
}
