#include "core/checkpoint/npy.h"

#include <array>
#include <charconv>
#include <string_view>
#include <utility>

#include "core/checkpoint/little_endian.h"
#include "core/checkpoint/printable.h"

namespace sluice {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::int64_t kVersionEnd = 8;              // magic, major, minor
constexpr std::int64_t kMaxNpyHeaderBytes = 65'536;  // NumPy writes 128 for every plain array

std::optional<DType> dtype_of_descr(std::string_view descr) {
  constexpr std::array<std::pair<std::string_view, DType>, 9> kNames = {{{"<f2", DType::kF16},
                                                                         {"<f4", DType::kF32},
                                                                         {"<f8", DType::kF64},
                                                                         {"|i1", DType::kI8},
                                                                         {"|u1", DType::kU8},
                                                                         {"<i2", DType::kI16},
                                                                         {"<i4", DType::kI32},
                                                                         {"<i8", DType::kI64},
                                                                         {"|b1", DType::kBool}}};
  for (const auto& [spelling, dtype] : kNames) {
    if (spelling == descr) return dtype;
  }
  return std::nullopt;
}

/// Reads the header's Python literal, {'descr': '<f2', 'fortran_order': False, 'shape': (3, 4), }: one flat
/// dictionary of a string, a boolean and a tuple of integers, and nothing else.
class HeaderParser {
 public:
  HeaderParser(const ByteSource& source, std::int64_t text_offset, std::string_view text)
      : source_(source), text_offset_(text_offset), text_(text) {}

  void parse() {
    expect('{');
    while (!accept('}')) {
      const std::string_view key = quoted();
      expect(':');
      if (key == "descr" && !descr) {
        if (peek() == '[') unsupported("a structured array", "save plain float16 or float32 arrays");
        descr = quoted();
      } else if (key == "fortran_order" && !fortran_order) {
        fortran_order = boolean();
      } else if (key == "shape" && !shape) {
        shape = tuple();
      } else {
        fail(fmt::format("key '{}' is unknown or appears twice", printable(key)));
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (position_ != text_.size()) fail("text behind the dictionary");
    if (!descr || !fortran_order || !shape) fail("needs descr, fortran_order and shape");
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw_corrupt(source_, text_offset_ + static_cast<std::int64_t>(position_), "npy header: " + what);
  }
  [[noreturn]] void unsupported(const std::string& what, const std::string& fix) const {
    throw Error(Code::kUnsupported, fmt::format("{}: npy header: {}", source_.name(), what), fix);
  }

  std::optional<std::string_view> descr;
  std::optional<bool> fortran_order;
  std::optional<std::vector<std::int64_t>> shape;

 private:
  void skip_space() {
    while (position_ < text_.size() && (text_[position_] == ' ' || text_[position_] == '\n')) ++position_;
  }
  char peek() {
    skip_space();
    return position_ < text_.size() ? text_[position_] : '\0';
  }
  bool accept(char c) {
    if (peek() != c) return false;
    ++position_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) fail(fmt::format("'{}' expected", c));
  }
  std::string_view quoted() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') fail("a string expected");
    const std::size_t begin = position_ + 1;
    const std::size_t end = text_.find(quote, begin);
    if (end == std::string_view::npos) fail("a string without end");
    position_ = end + 1;
    return text_.substr(begin, end - begin);
  }
  bool boolean() {
    skip_space();
    for (const auto& [word, value] : {std::pair{std::string_view("True"), true}, {"False", false}}) {
      if (text_.substr(position_).starts_with(word)) {
        position_ += word.size();
        return value;
      }
    }
    fail("True or False expected");
  }
  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> sizes;
    expect('(');
    while (!accept(')')) {
      if (sizes.size() == kMaxRank) fail(fmt::format("more than {} dimensions", kMaxRank));
      skip_space();
      std::int64_t size = 0;
      const char* const begin = text_.data() + position_;
      const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), size);
      if (error != std::errc() || size < 0) fail("a size between 0 and 2^63 expected");
      position_ += static_cast<std::size_t>(end - begin);
      sizes.push_back(size);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return sizes;
  }

  const ByteSource& source_;
  std::int64_t text_offset_;
  std::string_view text_;
  std::size_t position_ = 0;
};

}  // namespace

bool is_npy(ByteSource& source) {
  return source.size() >= static_cast<std::int64_t>(kMagic.size()) &&
         source.read_text(0, static_cast<std::int64_t>(kMagic.size())) == kMagic;
}

TensorRecord read_npy_header(ByteSource& source, const std::string& name) {
  if (!is_npy(source)) throw_corrupt(source, 0, "no .npy file: the magic \\x93NUMPY is missing");
  std::array<std::byte, 4> field{};
  source.read_at(kVersionEnd - 2, std::span(field).first(2));
  const int version = std::to_integer<int>(field[0]);
  SLUICE_CHECK(version >= 1 && version <= 3, Code::kUnsupported,
               fmt::format("{}: npy format version {}", source.name(), version),
               "known are versions 1, 2 and 3");
  const std::int64_t length_bytes = version == 1 ? 2 : 4;
  source.read_at(kVersionEnd, std::span(field).first(static_cast<std::size_t>(length_bytes)));
  const std::int64_t length = version == 1 ? load_u16(field.data()) : load_u32(field.data());
  if (length > kMaxNpyHeaderBytes) {
    throw_corrupt(source, kVersionEnd,
                  fmt::format("a header of {} bytes, the limit is {}", length, kMaxNpyHeaderBytes));
  }
  const std::int64_t text_offset = kVersionEnd + length_bytes;
  const std::string text = source.read_text(text_offset, length);
  HeaderParser header(source, text_offset, text);
  header.parse();

  const char* const fix = "save the array as little-endian float16 or float32";
  const std::optional<DType> dtype = dtype_of_descr(*header.descr);
  if (!dtype && header.descr->ends_with("V2")) {
    header.unsupported(fmt::format("descr '{}' does not say what the two bytes are (bfloat16 is saved so)",
                                   printable(*header.descr)),
                       fix);
  }
  if (!dtype) header.unsupported(fmt::format("descr '{}'", printable(*header.descr)), fix);
  if (*header.fortran_order && header.shape->size() > 1) {
    header.unsupported("fortran_order is True", "save numpy.ascontiguousarray of it");
  }
  const std::optional<std::int64_t> elements = checked_elements(*header.shape, *dtype);
  if (!elements) header.fail(fmt::format("shape {} overflows", shape_text(*header.shape)));
  const std::int64_t bytes = *elements * dtype_bytes(*dtype);
  const std::int64_t data_offset = text_offset + length;
  if (bytes != source.size() - data_offset) {
    throw_corrupt(
        source, data_offset,
        fmt::format("tensor '{}', {} {}, has {} bytes, the file has {} left", name, dtype_name(*dtype),
                    shape_text(*header.shape), bytes, source.size() - data_offset));
  }
  return {{name, *dtype, std::move(*header.shape), bytes, source.name(), data_offset}, {data_offset, {}}};
}

}  // namespace sluice
