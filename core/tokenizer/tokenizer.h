// Text to token ids and back. Thread-safe when const; a Decoder belongs to one thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  /// Token ids of UTF-8 `text`; special tokens written in the text ("</s>") become their ids. With
  /// `add_bos` the beginning-of-sequence id comes first. Bytes that are not valid UTF-8 are kept as bytes.
  virtual std::vector<std::int32_t> encode(std::string_view text, bool add_bos) const = 0;
  /// The bytes that `id` stands for. Empty for special tokens and for ids outside the vocabulary.
  virtual std::string_view token_bytes(std::int32_t id) const = 0;
  virtual bool is_special(std::int32_t id) const = 0;
  virtual std::int64_t vocab_size() const = 0;
  virtual std::int32_t bos_id() const = 0;
  virtual std::int32_t eos_id() const = 0;

  /// Text of `ids` without special tokens; invalid UTF-8 becomes U+FFFD.
  std::string decode(const std::vector<std::int32_t>& ids) const;
};

/// Decodes one sequence token by token and never emits half of a UTF-8 character.
class IncrementalDecoder {
 public:
  explicit IncrementalDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  /// The text that became complete with `id`; may be empty.
  std::string push(std::int32_t id);
  /// What is left, incomplete characters as U+FFFD.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  std::string pending_;
};

/// True if `folder` has tokenizer files that open_tokenizer reads.
bool has_tokenizer(const std::filesystem::path& folder);
/// Reads vocab.json and merges.txt (and tokenizer_config.json, if present, for the special tokens).
/// Throws Error{kNotFound, kCorrupt} with file and line.
std::unique_ptr<Tokenizer> open_tokenizer(const std::filesystem::path& folder);

}  // namespace sluice
