#include "tests/fuzz/mutator.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <sstream>
#include <string_view>

#include <fmt/format.h>

#include "core/error.h"

namespace sluice::fuzz {
namespace {

// Values at which sizes, offsets and counts go wrong: signs, wraps, alignments, caps.
constexpr std::array<std::uint64_t, 26> kIntegers = {0,
                                                     1,
                                                     2,
                                                     7,
                                                     8,
                                                     63,
                                                     64,
                                                     127,
                                                     128,
                                                     255,
                                                     256,
                                                     4095,
                                                     4096,
                                                     32767,
                                                     32768,
                                                     65535,
                                                     65536,
                                                     0x7FFFFFFFU,
                                                     0x80000000U,
                                                     0xFFFFFFFFU,
                                                     0x100000000U,
                                                     0xFFFFFFFFFFFFULL,
                                                     1ULL << 53,
                                                     0x7FFFFFFFFFFFFFFFULL,
                                                     1ULL << 63,
                                                     ~0ULL};
constexpr std::array<std::string_view, 14> kDecimals = {"0",
                                                        "-1",
                                                        "1",
                                                        "4096",
                                                        "2147483648",
                                                        "4294967296",
                                                        "9007199254740993",
                                                        "9223372036854775807",
                                                        "9223372036854775808",
                                                        "18446744073709551616",
                                                        "-9223372036854775809",
                                                        "1e400",
                                                        "-0.0",
                                                        "nan"};

}  // namespace

Mutator::Mutator(std::uint64_t seed, std::size_t max_bytes, std::vector<Bytes> dictionary)
    : random_(seed), max_bytes_(max_bytes), dictionary_(std::move(dictionary)) {}

std::size_t Mutator::below(std::size_t n) { return n == 0 ? 0 : static_cast<std::size_t>(random_() % n); }

Bytes Mutator::next(const std::vector<Bytes>& corpus) {
  Bytes input = corpus[below(corpus.size())];
  const std::size_t edits = std::size_t{1} << below(4);
  for (std::size_t i = 0; i < edits; ++i) edit(input, corpus);
  if (input.size() > max_bytes_) input.resize(max_bytes_);
  return input;
}

void Mutator::edit(Bytes& input, const std::vector<Bytes>& corpus) {
  switch (below(10)) {
    case 0:
      return flip_bit(input);
    case 1:
      return set_byte(input);
    case 2:
      return insert_random(input);
    case 3:
      return erase_range(input);
    case 4:
      return truncate(input);
    case 5:
      return repeat_range(input);
    case 6:
      return splice(input, corpus[below(corpus.size())]);
    case 7:
      return put_integer(input);
    case 8:
      return put_decimal(input);
    default:
      return put_token(input);
  }
}

void Mutator::flip_bit(Bytes& input) {
  if (input.empty()) return;
  input[below(input.size())] ^= static_cast<std::uint8_t>(1U << below(8));
}

void Mutator::set_byte(Bytes& input) {
  if (input.empty()) return;
  input[below(input.size())] = static_cast<std::uint8_t>(below(256));
}

void Mutator::insert_random(Bytes& input) {
  Bytes piece(1 + below(16));
  for (std::uint8_t& byte : piece) byte = static_cast<std::uint8_t>(below(256));
  insert(input, piece);
}

void Mutator::erase_range(Bytes& input) {
  if (input.empty()) return;
  const std::size_t first = below(input.size());
  const std::size_t count = 1 + below(std::min<std::size_t>(input.size() - first, 64));
  input.erase(input.begin() + static_cast<std::ptrdiff_t>(first),
              input.begin() + static_cast<std::ptrdiff_t>(std::min(first + count, input.size())));
}

void Mutator::truncate(Bytes& input) { input.resize(below(input.size() + 1)); }

void Mutator::repeat_range(Bytes& input) {
  if (input.empty()) return;
  const std::size_t first = below(input.size());
  const std::size_t count = 1 + below(std::min<std::size_t>(input.size() - first, 64));
  const auto begin = input.begin() + static_cast<std::ptrdiff_t>(first);
  insert(input, Bytes(begin, begin + static_cast<std::ptrdiff_t>(std::min(count, input.size() - first))));
}

// The head of one input and the tail of another.
void Mutator::splice(Bytes& input, const Bytes& other) {
  input.resize(below(input.size() + 1));
  input.insert(input.end(), other.begin() + static_cast<std::ptrdiff_t>(below(other.size() + 1)),
               other.end());
}

// Overwrites one to eight bytes with an integer of either byte order, often near a value of the table.
void Mutator::put_integer(Bytes& input) {
  const std::size_t width = std::size_t{1} << below(4);
  if (input.size() < width) return;
  const std::uint64_t value = kIntegers[below(kIntegers.size())] + below(5) - 2;
  const std::size_t at = below(input.size() - width + 1);
  const bool big_endian = below(2) == 1;
  for (std::size_t i = 0; i < width; ++i) {
    input[at + (big_endian ? width - 1 - i : i)] = static_cast<std::uint8_t>(value >> (8 * i));
  }
}

// Replaces a run of ASCII digits, which text formats use for sizes and offsets.
void Mutator::put_decimal(Bytes& input) {
  const auto is_digit = [](std::uint8_t c) { return c >= '0' && c <= '9'; };
  const auto from = input.begin() + static_cast<std::ptrdiff_t>(below(input.size()));
  const auto first = std::find_if(from, input.end(), is_digit);
  const auto last = std::find_if_not(first, input.end(), is_digit);
  const auto at = input.erase(first, last);
  const std::string_view text = kDecimals[below(kDecimals.size())];
  input.insert(at, text.begin(), text.end());
}

void Mutator::put_token(Bytes& input) {
  if (dictionary_.empty()) return flip_bit(input);
  const Bytes& token = dictionary_[below(dictionary_.size())];
  if (below(2) == 0 || input.size() < token.size()) return insert(input, token);
  std::copy(token.begin(), token.end(),
            input.begin() + static_cast<std::ptrdiff_t>(below(input.size() - token.size() + 1)));
}

void Mutator::insert(Bytes& input, const Bytes& piece) {
  input.insert(input.begin() + static_cast<std::ptrdiff_t>(below(input.size() + 1)), piece.begin(),
               piece.end());
}

std::vector<Bytes> parse_dictionary(const std::string& text) {
  std::vector<Bytes> tokens;
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    const std::size_t start = line.find_first_not_of(" \t\r");
    if (start == std::string::npos || line[start] == '#') continue;
    const std::size_t open = line.find('"');
    const std::size_t close = line.rfind('"');
    SLUICE_CHECK(open != std::string::npos && close > open, Code::kInvalidArgument,
                 fmt::format("dictionary line {} has no quoted value", number), "write name=\"value\"");
    Bytes token;
    for (std::size_t i = open + 1; i < close; ++i) {
      if (line[i] != '\\') {
        token.push_back(static_cast<std::uint8_t>(line[i]));
        continue;
      }
      ++i;
      unsigned value = 0;
      if (i + 2 < close && line[i] == 'x' &&
          std::from_chars(&line[i + 1], &line[i + 3], value, 16).ptr == &line[i + 3]) {
        token.push_back(static_cast<std::uint8_t>(value));
        i += 2;
        continue;
      }
      SLUICE_CHECK(i < close && (line[i] == '\\' || line[i] == '"'), Code::kInvalidArgument,
                   fmt::format("dictionary line {} has an unknown escape", number),
                   "use \\\\, \\\" or \\xNN");
      token.push_back(static_cast<std::uint8_t>(line[i]));
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace sluice::fuzz
