// Byte-level byte-pair encoding as OPT and GPT-2 use it: text is cut into pieces by a pattern, the bytes of a
// piece are tokens, and pairs of tokens merge by rank. Immutable, so thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/tokenizer/bpe_merges.h"
#include "core/tokenizer/pre_tokenizer.h"
#include "core/tokenizer/special_tokens.h"
#include "core/tokenizer/tokenizer.h"

namespace sluice {

/// The texts of a tokenizer's files; the special ones may be empty.
struct BpeFiles {
  std::string folder;  ///< for messages
  std::string vocab;   ///< vocab.json: {"token": id, ...}, tokens in GPT-2's byte alphabet
  std::string merges;  ///< merges.txt: "left right" a line in rank order, after an optional #version line
  SpecialTokenFiles special;
};

class ByteLevelBpe final : public Tokenizer {
 public:
  /// Throws Error{kCorrupt} with file and line, Error{kInvalidArgument} if no token begins or ends a
  /// sequence, Error{kUnsupported} for options that would change the ids.
  explicit ByteLevelBpe(const BpeFiles& files);

  std::vector<std::int32_t> encode(std::string_view text, bool add_bos) const override;
  std::string_view token_bytes(std::int32_t id) const override;
  bool is_special(std::int32_t id) const override;
  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(tokens_.size()); }
  std::int32_t bos_id() const override { return bos_id_; }
  std::int32_t eos_id() const override { return eos_id_; }

 private:
  struct Loaded;
  explicit ByteLevelBpe(const Loaded& loaded);
  struct Token {
    std::string bytes;
    bool special = false;
    bool added = false;  ///< found in the text before it is cut into pieces; never made by merges
  };

  void find_whole_pieces();
  void encode_plain(std::string_view text, PreTokenizer::Cutter& cutter, BpeMerges::Workspace& work,
                    std::vector<std::int32_t>& ids) const;

  // Fixed after construction.
  PreTokenizer pre_tokenizer_;
  BpeMerges merges_;
  AddedTokenFinder added_;
  std::vector<Token> tokens_;                 ///< by id
  std::array<std::int32_t, 256> byte_ids_{};  ///< by byte
  /// Pieces that merge into one token, so that most words are one look-up. Keys point into tokens_.
  std::unordered_map<std::string_view, std::int32_t> whole_pieces_;
  std::int32_t bos_id_ = -1, eos_id_ = -1;
};

}  // namespace sluice
