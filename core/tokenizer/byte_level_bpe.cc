#include "core/tokenizer/byte_level_bpe.h"

#include <algorithm>
#include <limits>

#include <nlohmann/json.hpp>

#include "core/checkpoint/printable.h"
#include "core/checkpoint/strict_json.h"
#include "core/error.h"
#include "core/tokenizer/byte_alphabet.h"
#include "core/tokenizer/utf8.h"

namespace sluice {
namespace {

using IdsBySymbol = std::unordered_map<std::string_view, std::int32_t>;

constexpr const char* kFetchAgain = "fetch the model's tokenizer files again";

nlohmann::json parse_vocab(const BpeFiles& files) {
  const std::string path = files.folder + "/vocab.json";
  nlohmann::json vocab = parse_json_object(files.vocab, path);
  SLUICE_CHECK(!vocab.empty(), Code::kCorrupt, path + ": no tokens", kFetchAgain);
  for (const auto& [symbol, id] : vocab.items()) {
    SLUICE_CHECK(
        id.is_number_integer() && id.get<std::int64_t>() >= 0 && id.get<std::int64_t>() < kMaxTokenId,
        Code::kCorrupt,
        fmt::format("{}: id of '{}' is {}, not a number in [0, {})", path, printable(symbol),
                    printable(id.dump()), kMaxTokenId),
        kFetchAgain);
  }
  return vocab;
}

IdsBySymbol index_vocab(const nlohmann::json& vocab, const std::string& folder) {
  IdsBySymbol ids;
  ids.reserve(vocab.size());
  std::unordered_map<std::int32_t, std::string_view> symbols;
  symbols.reserve(vocab.size());
  for (auto it = vocab.begin(); it != vocab.end(); ++it) {
    const auto id = it->get<std::int32_t>();
    const auto [other, is_new] = symbols.emplace(id, it.key());
    SLUICE_CHECK(is_new, Code::kCorrupt,
                 fmt::format("{}/vocab.json: '{}' and '{}' both have id {}", folder, printable(other->second),
                             printable(it.key()), id),
                 kFetchAgain);
    ids.emplace(it.key(), id);
  }
  return ids;
}

std::vector<BpeMerges::Merge> parse_merges(const BpeFiles& files, const IdsBySymbol& ids) {
  std::vector<BpeMerges::Merge> merges;
  std::string_view rest = files.merges;
  std::string joined;
  for (std::int64_t line_number = 1; !rest.empty(); ++line_number) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (line_number == 1 && line.starts_with("#version"))) continue;

    const auto refuse = [&](const std::string& problem) {
      return Error(Code::kCorrupt, fmt::format("{}/merges.txt:{}: {}", files.folder, line_number, problem),
                   kFetchAgain);
    };
    const std::size_t space = line.find(' ');
    if (space == 0 || space == std::string_view::npos || space + 1 == line.size() ||
        line.find(' ', space + 1) != std::string_view::npos) {
      throw refuse(fmt::format("'{}' is not two symbols with a space between", printable(line)));
    }
    const auto id_of = [&](std::string_view symbol) {
      const auto it = ids.find(symbol);
      if (it == ids.end()) throw refuse(fmt::format("'{}' is not in vocab.json", printable(symbol)));
      return it->second;
    };
    const std::string_view left = line.substr(0, space), right = line.substr(space + 1);
    joined.assign(left).append(right);
    merges.push_back({id_of(left), id_of(right), id_of(joined)});
  }
  return merges;
}

}  // namespace

struct ByteLevelBpe::Loaded {
  explicit Loaded(const BpeFiles& files)
      : folder(files.folder),
        vocab(parse_vocab(files)),
        ids(index_vocab(vocab, folder)),
        merges(parse_merges(files, ids)),
        special(read_special_tokens(files.special, folder, ids)) {}

  /// The id of the token with role `key`, named `configured` by the files, else OPT's </s>.
  std::int32_t role_id(const char* key, const std::optional<std::string>& configured) const {
    const std::string token = configured.value_or("</s>");
    for (const AddedToken& added : special.tokens) {
      if (added.text == token) return added.id;
    }
    throw Error(Code::kInvalidArgument,
                configured ? fmt::format("{}: {} '{}' is in neither vocab.json nor added_tokens.json", folder,
                                         key, token)
                           : fmt::format("{}: no file names the {}, and vocab.json has no </s>", folder, key),
                fmt::format("name it as \"{}\" in tokenizer_config.json", key));
  }

  const std::string& folder;
  const nlohmann::json vocab;
  const IdsBySymbol ids;  ///< keys point into vocab
  const std::vector<BpeMerges::Merge> merges;
  const SpecialTokens special;
};

ByteLevelBpe::ByteLevelBpe(const BpeFiles& files) : ByteLevelBpe(Loaded(files)) {}

ByteLevelBpe::ByteLevelBpe(const Loaded& loaded)
    : merges_(loaded.merges),
      added_(loaded.special.tokens),
      bos_id_(loaded.role_id("bos_token", loaded.special.bos)),
      eos_id_(loaded.role_id("eos_token", loaded.special.eos)) {
  std::int32_t max_id = 0;
  for (const auto& [symbol, id] : loaded.ids) max_id = std::max(max_id, id);
  for (const AddedToken& token : loaded.special.tokens) max_id = std::max(max_id, token.id);
  tokens_.resize(static_cast<std::size_t>(max_id) + 1);
  for (const auto& [symbol, id] : loaded.ids) {
    // Words that were added by hand may hold characters outside the alphabet: they stand for themselves.
    tokens_[static_cast<std::size_t>(id)].bytes = alphabet_to_bytes(symbol).value_or(std::string(symbol));
  }
  for (const AddedToken& added : loaded.special.tokens) {
    Token& token = tokens_[static_cast<std::size_t>(added.id)];
    SLUICE_CHECK(!token.added && (token.bytes.empty() || loaded.ids.contains(added.text)), Code::kCorrupt,
                 fmt::format("{}: added token '{}' has id {}, which another token has too", loaded.folder,
                             printable(added.text), added.id),
                 kFetchAgain);
    token = {added.special ? std::string() : added.text, added.special, /*added=*/true};
  }
  for (std::size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    std::string symbol;
    append_utf8(symbol, alphabet_code_point(static_cast<std::uint8_t>(byte)));
    const auto it = loaded.ids.find(symbol);
    SLUICE_CHECK(it != loaded.ids.end() || loaded.special.unk, Code::kCorrupt,
                 fmt::format("{}/vocab.json: byte 0x{:02x} ('{}') has no token, and there is no unk_token",
                             loaded.folder, byte, printable(symbol)),
                 kFetchAgain);
    byte_ids_[byte] = it != loaded.ids.end() ? it->second : loaded.role_id("unk_token", loaded.special.unk);
  }
  find_whole_pieces();
}

void ByteLevelBpe::find_whole_pieces() {
  BpeMerges::Workspace work;
  std::vector<std::int32_t> ids;
  whole_pieces_.reserve(tokens_.size());
  for (std::size_t id = 0; id < tokens_.size(); ++id) {
    const Token& token = tokens_[id];
    if (token.added || token.bytes.empty()) continue;
    ids.clear();
    for (const char c : token.bytes) ids.push_back(byte_ids_[static_cast<std::uint8_t>(c)]);
    // Not every token comes out of the merges of its own bytes, so this is asked and not assumed.
    if (merges_.merge(ids, work) == 1 && ids[0] == static_cast<std::int32_t>(id)) {
      whole_pieces_.emplace(token.bytes, ids[0]);
    }
  }
}

std::vector<std::int32_t> ByteLevelBpe::encode(std::string_view text, bool add_bos) const {
  SLUICE_CHECK(text.size() < std::numeric_limits<std::int32_t>::max(), Code::kUnsupported,
               fmt::format("text of {} bytes in one piece", text.size()), "cut it into texts below 2 GiB");
  std::vector<std::int32_t> ids;
  ids.reserve(text.size() / 3 + 8);  // English has four to five bytes a token
  if (add_bos) ids.push_back(bos_id_);
  PreTokenizer::Cutter cutter(pre_tokenizer_);
  BpeMerges::Workspace work;
  while (const auto found = added_.find(text)) {
    encode_plain(text.substr(0, found->offset), cutter, work, ids);
    ids.push_back(found->id);
    text.remove_prefix(found->offset + found->length);
  }
  encode_plain(text, cutter, work, ids);
  return ids;
}

void ByteLevelBpe::encode_plain(std::string_view text, PreTokenizer::Cutter& cutter,
                                BpeMerges::Workspace& work, std::vector<std::int32_t>& ids) const {
  cutter.start(text);
  for (std::string_view piece = cutter.next(); !piece.empty(); piece = cutter.next()) {
    if (const auto it = whole_pieces_.find(piece); it != whole_pieces_.end()) {
      ids.push_back(it->second);
      continue;
    }
    const std::size_t start = ids.size();
    for (const char c : piece) ids.push_back(byte_ids_[static_cast<std::uint8_t>(c)]);
    ids.resize(start + merges_.merge(std::span(ids).subspan(start), work));
  }
}

std::string_view ByteLevelBpe::token_bytes(std::int32_t id) const {
  if (id < 0 || id >= vocab_size()) return {};
  return tokens_[static_cast<std::size_t>(id)].bytes;
}

bool ByteLevelBpe::is_special(std::int32_t id) const {
  return id >= 0 && id < vocab_size() && tokens_[static_cast<std::size_t>(id)].special;
}

}  // namespace sluice
