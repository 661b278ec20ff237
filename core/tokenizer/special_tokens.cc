#include "core/tokenizer/special_tokens.h"

#include <algorithm>
#include <charconv>

#include <nlohmann/json.hpp>

#include "core/checkpoint/printable.h"
#include "core/checkpoint/strict_json.h"
#include "core/error.h"

namespace sluice {
namespace {

using nlohmann::json;

constexpr std::array<const char*, 7> kRoles = {"bos_token",  "eos_token", "unk_token", "pad_token",
                                               "mask_token", "sep_token", "cls_token"};
constexpr std::array<const char*, 5> kWellKnown = {"<s>", "<pad>", "</s>", "<unk>", "<mask>"};

class Reader {
 public:
  Reader(const std::string& folder, const std::unordered_map<std::string_view, std::int32_t>& vocab)
      : folder_(folder), vocab_(vocab) {}

  void read_config(const std::string& text) {
    const json config = object("tokenizer_config.json", text);
    // This option puts a space before every text, which would silently change ids.
    SLUICE_CHECK(!(config.contains("add_prefix_space") && config["add_prefix_space"] == true),
                 Code::kUnsupported, path() + ": add_prefix_space is true",
                 "use a tokenizer that does not add a space");
    if (const auto it = config.find("added_tokens_decoder"); it != config.end() && !it->is_null()) {
      SLUICE_CHECK(it->is_object(), Code::kCorrupt, path() + ": added_tokens_decoder is not an object", kFix);
      for (const auto& [id, token] : it->items()) {
        const std::string key = fmt::format("added_tokens_decoder.{}", printable(id));
        const bool special = token.is_object() && token.contains("special") && token["special"] == true;
        add(content(token, key), parse_id(id, key), special);
      }
    }
    read_roles(config);
  }

  void read_map(const std::string& text) { read_roles(object("special_tokens_map.json", text)); }

  void read_added(const std::string& text) {
    const json ids = object("added_tokens.json", text);
    for (const auto& [token, id] : ids.items()) {
      SLUICE_CHECK(
          id.is_number_integer() && id.get<std::int64_t>() >= 0 && id.get<std::int64_t>() < kMaxTokenId,
          Code::kCorrupt, fmt::format("{}: id of '{}' is {}", path(), printable(token), printable(id.dump())),
          kFix);
      SLUICE_CHECK(!token.empty(), Code::kCorrupt, path() + ": a token is empty", kFix);
      add(token, id.get<std::int32_t>(), false);
    }
  }

  SpecialTokens take() {
    const auto special = [](const AddedToken& token) { return token.special; };
    if (std::none_of(found_.tokens.begin(), found_.tokens.end(), special)) {
      for (const char* token : kWellKnown) name(token);
    }
    if (!found_.bos || !found_.eos) name("</s>");  // OPT's default for both roles
    return std::move(found_);
  }

 private:
  static constexpr const char* kFix = "fetch the model's tokenizer files again";

  std::string path() const { return folder_ + "/" + file_; }

  json object(const char* file, const std::string& text) {
    file_ = file;
    return parse_json_object(text, path());
  }

  /// A token is written as its text or as {"content": text, ...}.
  std::string content(const json& token, const std::string& key) const {
    const json& text = token.is_object() && token.contains("content") ? token["content"] : token;
    SLUICE_CHECK(text.is_string() && !text.get_ref<const std::string&>().empty(), Code::kCorrupt,
                 fmt::format("{}: {} is neither a text nor an object with a 'content'", path(), key), kFix);
    return text.get<std::string>();
  }

  std::int32_t parse_id(const std::string& text, const std::string& key) const {
    std::int32_t id = -1;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), id);
    SLUICE_CHECK(ec == std::errc{} && end == text.data() + text.size() && id >= 0 && id < kMaxTokenId,
                 Code::kCorrupt, fmt::format("{}: {} is not a token id", path(), key), kFix);
    return id;
  }

  void read_roles(const json& config) {
    for (const char* role : kRoles) {
      const auto it = config.find(role);
      if (it == config.end() || it->is_null()) continue;
      const std::string token = content(*it, role);
      name(token);
      const std::string_view key = role;
      if (key == "bos_token" && !found_.bos) found_.bos = token;
      if (key == "eos_token" && !found_.eos) found_.eos = token;
      if (key == "unk_token" && !found_.unk) found_.unk = token;
    }
    const auto more = config.find("additional_special_tokens");
    if (more == config.end() || more->is_null()) return;
    SLUICE_CHECK(more->is_array(), Code::kCorrupt, path() + ": additional_special_tokens is not a list",
                 kFix);
    for (const json& token : *more) name(content(token, "additional_special_tokens"));
  }

  /// A token that has a role: special, with the id it has in added_tokens or the vocabulary.
  void name(const std::string& token) {
    for (AddedToken& known : found_.tokens) {
      if (known.text == token) {
        known.special = true;
        return;
      }
    }
    if (const auto it = vocab_.find(token); it != vocab_.end())
      found_.tokens.push_back({token, it->second, true});
  }

  void add(const std::string& token, std::int32_t id, bool special) {
    const auto in_vocab = vocab_.find(token);
    SLUICE_CHECK(in_vocab == vocab_.end() || in_vocab->second == id, Code::kCorrupt,
                 fmt::format("{}: '{}' has id {}, but {} in vocab.json", path(), printable(token), id,
                             in_vocab->second),
                 kFix);
    for (AddedToken& known : found_.tokens) {
      if (known.text != token) continue;
      SLUICE_CHECK(known.id == id, Code::kCorrupt,
                   fmt::format("{}: '{}' has two ids, {} and {}", path(), printable(token), known.id, id),
                   kFix);
      known.special = known.special || special;
      return;
    }
    found_.tokens.push_back({token, id, special});
  }

  const std::string& folder_;
  const std::unordered_map<std::string_view, std::int32_t>& vocab_;
  std::string file_;
  SpecialTokens found_;
};

}  // namespace

SpecialTokens read_special_tokens(const SpecialTokenFiles& files, const std::string& folder,
                                  const std::unordered_map<std::string_view, std::int32_t>& vocab) {
  Reader reader(folder, vocab);
  // Ids first: added_tokens.json gives those of tokens that the other files only name.
  if (!files.added_tokens.empty()) reader.read_added(files.added_tokens);
  if (!files.tokenizer_config.empty()) reader.read_config(files.tokenizer_config);
  if (!files.special_tokens_map.empty()) reader.read_map(files.special_tokens_map);
  return reader.take();
}

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::stable_sort(tokens_.begin(), tokens_.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.text.size() > b.text.size(); });
  for (const AddedToken& token : tokens_) starts_[static_cast<std::uint8_t>(token.text.front())] = true;
}

std::optional<AddedTokenFinder::Found> AddedTokenFinder::find(std::string_view text) const {
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (!starts_[static_cast<std::uint8_t>(text[i])]) continue;
    for (const AddedToken& token : tokens_) {
      if (text.substr(i).starts_with(token.text)) return Found{i, token.text.size(), token.id};
    }
  }
  return std::nullopt;
}

}  // namespace sluice
