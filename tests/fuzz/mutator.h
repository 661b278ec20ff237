// Makes new inputs out of a corpus. The sequence depends on the seed and the corpus alone. Not thread-safe.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace sluice::fuzz {

using Bytes = std::vector<std::uint8_t>;

class Mutator {
 public:
  /// `max_bytes` bounds every input. `dictionary` holds tokens of the format (keywords, magic numbers).
  Mutator(std::uint64_t seed, std::size_t max_bytes, std::vector<Bytes> dictionary);

  /// A copy of a random corpus entry after one to eight random edits. `corpus` must not be empty.
  Bytes next(const std::vector<Bytes>& corpus);

 private:
  std::size_t below(std::size_t n);  ///< uniform in [0, n); 0 if n is 0
  void edit(Bytes& input, const std::vector<Bytes>& corpus);
  void flip_bit(Bytes& input);
  void set_byte(Bytes& input);
  void insert_random(Bytes& input);
  void erase_range(Bytes& input);
  void truncate(Bytes& input);
  void repeat_range(Bytes& input);
  void splice(Bytes& input, const Bytes& other);
  void put_integer(Bytes& input);
  void put_decimal(Bytes& input);
  void put_token(Bytes& input);
  void insert(Bytes& input, const Bytes& piece);

  std::mt19937_64 random_;
  std::size_t max_bytes_;
  std::vector<Bytes> dictionary_;
};

/// Reads a dictionary in libFuzzer's format: one `name="value"` or `"value"` a line, with \\, \" and \xNN; #
/// comments. Throws Error{kInvalidArgument} with the line number of what it cannot read.
std::vector<Bytes> parse_dictionary(const std::string& text);

}  // namespace sluice::fuzz
