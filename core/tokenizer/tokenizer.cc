#include "core/tokenizer/tokenizer.h"

#include <fstream>
#include <iterator>

#include "core/error.h"
#include "core/tokenizer/byte_level_bpe.h"
#include "core/tokenizer/utf8.h"

namespace sluice {
namespace {

/// Moves the characters of `bytes` that are complete to the result; with `at_end` all of them.
std::string take_characters(std::string& bytes, bool at_end) {
  std::string text;
  std::string_view rest = bytes;
  while (!rest.empty()) {
    const std::size_t valid = valid_utf8_prefix(rest);
    text += rest.substr(0, valid);
    rest.remove_prefix(valid);
    if (rest.empty()) break;
    const Utf8Step step = next_utf8(rest);
    if (step.kind == Utf8Kind::kIncomplete && !at_end) break;
    text += kReplacement;
    rest.remove_prefix(step.length);
  }
  bytes.erase(0, bytes.size() - rest.size());
  return text;
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  SLUICE_CHECK(in.is_open(), Code::kIo, fmt::format("cannot open {}", path.string()),
               "check its permissions");
  std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  SLUICE_CHECK(!in.bad(), Code::kIo, fmt::format("cannot read {}", path.string()), "check the disk");
  return text;
}

std::string read_if_present(const std::filesystem::path& path) {
  return std::filesystem::is_regular_file(path) ? read_text(path) : std::string();
}

}  // namespace

std::string Tokenizer::decode(const std::vector<std::int32_t>& ids) const {
  std::string bytes;
  for (const std::int32_t id : ids) bytes += token_bytes(id);
  return take_characters(bytes, /*at_end=*/true);
}

std::string IncrementalDecoder::push(std::int32_t id) {
  pending_ += tokenizer_->token_bytes(id);
  return take_characters(pending_, /*at_end=*/false);
}

std::string IncrementalDecoder::finish() { return take_characters(pending_, /*at_end=*/true); }

bool has_tokenizer(const std::filesystem::path& folder) {
  return std::filesystem::is_regular_file(folder / "vocab.json") &&
         std::filesystem::is_regular_file(folder / "merges.txt");
}

std::unique_ptr<Tokenizer> open_tokenizer(const std::filesystem::path& folder) {
  for (const char* name : {"vocab.json", "merges.txt"}) {
    SLUICE_CHECK(std::filesystem::is_regular_file(folder / name), Code::kNotFound,
                 fmt::format("no tokenizer: {} is missing", (folder / name).string()),
                 "put vocab.json and merges.txt there, or name their folder with --tokenizer");
  }
  BpeFiles files;
  files.folder = folder.string();
  files.vocab = read_text(folder / "vocab.json");
  files.merges = read_text(folder / "merges.txt");
  files.special.tokenizer_config = read_if_present(folder / "tokenizer_config.json");
  files.special.special_tokens_map = read_if_present(folder / "special_tokens_map.json");
  files.special.added_tokens = read_if_present(folder / "added_tokens.json");
  return std::make_unique<ByteLevelBpe>(files);
}

}  // namespace sluice
