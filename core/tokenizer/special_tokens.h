// Special and added tokens: which a tokenizer's files name, and where they stand in a text. Immutable once
// built, so thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace sluice {

/// Ids are below this, so that a damaged file cannot ask for gigabytes; the largest vocabularies in use have
/// about 2^18 tokens.
inline constexpr std::int32_t kMaxTokenId = 1 << 20;

struct AddedToken {
  std::string text;
  std::int32_t id = -1;
  bool special = true;  ///< left out of decoded text; false for added words
};

/// The roles that a tokenizer's files give to tokens.
struct SpecialTokens {
  std::vector<AddedToken> tokens;  ///< each text once
  std::optional<std::string> bos, eos, unk;
};

/// The optional JSON files beside vocab.json; empty text for a file that is absent.
struct SpecialTokenFiles {
  std::string tokenizer_config, special_tokens_map, added_tokens;
};

/// Reads what the files name; where roles differ, tokenizer_config.json counts. A named token takes its id
/// from the files or from `vocab` and is left out if neither has it. If the files name no special token,
/// those that OPT's vocabulary is known for are used: <s>, <pad>, </s>, <unk>, <mask>. `folder` is for
/// messages. Throws Error{kCorrupt} naming file and key; Error{kUnsupported} for options that would change
/// the ids.
SpecialTokens read_special_tokens(const SpecialTokenFiles& files, const std::string& folder,
                                  const std::unordered_map<std::string_view, std::int32_t>& vocab);

/// Finds tokens in a text: the leftmost one, the longest where several start.
class AddedTokenFinder {
 public:
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);

  struct Found {
    std::size_t offset, length;
    std::int32_t id;
  };
  std::optional<Found> find(std::string_view text) const;

 private:
  std::vector<AddedToken> tokens_;  ///< by falling length
  std::array<bool, 256> starts_{};  ///< by first byte
};

}  // namespace sluice
