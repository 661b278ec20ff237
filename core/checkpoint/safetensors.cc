#include "core/checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <limits>
#include <unordered_set>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/checkpoint/little_endian.h"
#include "core/checkpoint/printable.h"

namespace sluice {
namespace {

// The limit of the reference implementation; see CHECKPOINTS.md.
constexpr std::uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;
constexpr std::int64_t kLengthBytes = 8;

std::optional<DType> dtype_of_name(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, DType>, 10> kNames = {{{"F32", DType::kF32},
                                                                          {"F16", DType::kF16},
                                                                          {"BF16", DType::kBF16},
                                                                          {"F64", DType::kF64},
                                                                          {"I8", DType::kI8},
                                                                          {"U8", DType::kU8},
                                                                          {"I16", DType::kI16},
                                                                          {"I32", DType::kI32},
                                                                          {"I64", DType::kI64},
                                                                          {"BOOL", DType::kBool}}};
  for (const auto& [spelling, dtype] : kNames) {
    if (spelling == name) return dtype;
  }
  return std::nullopt;
}

// Takes the header's JSON as events instead of building a tree: only three levels are legal, so memory
// stays at the size of the tensor list, and a name that appears twice is seen.
class HeaderHandler final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderHandler(const ByteSource& source, std::int64_t data_begin)
      : source_(source), data_begin_(data_begin) {}
  std::vector<TensorRecord> take() { return std::move(records_); }

  bool start_object(std::size_t) override {
    if (place_ == Place::kStart) return go(Place::kTensorList);
    if (place_ == Place::kTensorList) return go(name_ == "__metadata__" ? Place::kMetadata : Place::kTensor);
    return fail("an object where a value is expected");
  }
  bool end_object() override {
    if (place_ == Place::kTensorList) return go(Place::kEnd);
    if (place_ == Place::kTensor) finish_tensor();
    return go(Place::kTensorList);
  }
  bool key(string_t& text) override {
    if (place_ == Place::kTensorList) {
      if (!names_.insert(text).second) {
        name_.clear();
        fail(fmt::format("tensor '{}' appears twice", printable(text)));
      }
      name_ = text;
      dtype_.reset();
      shape_.reset();
      offsets_.reset();
    } else if (place_ == Place::kTensor) {
      if (text != "dtype" && text != "shape" && text != "data_offsets") {
        fail(fmt::format("unknown field '{}'", printable(text)));
      }
      if ((text == "dtype" && dtype_) || (text == "shape" && shape_) ||
          (text == "data_offsets" && offsets_)) {
        fail(fmt::format("field '{}' appears twice", text));
      }
      field_ = text;
    }
    return true;
  }
  bool string(string_t& text) override {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kTensor || field_ != "dtype") return fail("a string where none belongs");
    dtype_ = dtype_of_name(text);
    SLUICE_CHECK(
        dtype_.has_value(), Code::kUnsupported,
        fmt::format("{}: tensor '{}' has dtype '{}'", source_.name(), printable(name_), printable(text)),
        "convert the checkpoint to F16, BF16 or F32");
    return true;
  }
  bool start_array(std::size_t) override {
    if (place_ != Place::kTensor || field_ == "dtype") return fail("an array where none belongs");
    (field_ == "shape" ? shape_ : offsets_).emplace();
    return go(Place::kNumbers);
  }
  bool end_array() override { return go(Place::kTensor); }
  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::kNumbers) return fail("a number where none belongs");
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return fail(fmt::format("{} in '{}' does not fit in 63 bits", value, field_));
    }
    auto& numbers = field_ == "shape" ? *shape_ : *offsets_;
    if (numbers.size() == kMaxRank)
      return fail(fmt::format("more than {} numbers in '{}'", kMaxRank, field_));
    numbers.push_back(static_cast<std::int64_t>(value));
    return true;
  }
  bool number_integer(number_integer_t value) override { return fail(fmt::format("{} is negative", value)); }
  bool number_float(number_float_t, const string_t& text) override {
    return fail(fmt::format("{} is no 63-bit integer", printable(text)));
  }
  bool null() override { return fail("null where none belongs"); }
  bool boolean(bool) override { return fail("a boolean where none belongs"); }
  bool binary(binary_t&) override { return fail("binary data where none belongs"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) override {
    // `position` counts the characters read, the offending one included.
    const auto before = static_cast<std::int64_t>(position > 0 ? position - 1 : 0);
    throw_corrupt(source_, kLengthBytes + before, "the header is not valid JSON");
  }

 private:
  enum class Place { kStart, kTensorList, kMetadata, kTensor, kNumbers, kEnd };

  bool go(Place place) {
    place_ = place;
    return true;
  }
  bool fail(const std::string& what) {
    throw_corrupt(
        source_, kLengthBytes,
        name_.empty() ? "header: " + what : fmt::format("header: tensor '{}': {}", printable(name_), what));
  }

  void finish_tensor() {
    if (!dtype_ || !shape_ || !offsets_) fail("needs dtype, shape and data_offsets");
    if (offsets_->size() != 2)
      fail(fmt::format("data_offsets has {} numbers, must have 2", offsets_->size()));
    const std::int64_t begin = (*offsets_)[0];
    const std::int64_t end = (*offsets_)[1];
    const std::optional<std::int64_t> elements = checked_elements(*shape_, *dtype_);
    if (!elements) fail(fmt::format("shape {} overflows", shape_text(*shape_)));
    const std::int64_t bytes = *elements * dtype_bytes(*dtype_);
    if (end < begin || end - begin != bytes) {
      fail(fmt::format("data_offsets [{}, {}] do not hold the {} bytes of {} {}", begin, end, bytes,
                       dtype_name(*dtype_), shape_text(*shape_)));
    }
    if (end > source_.size() - data_begin_) {
      throw_corrupt(source_, source_.size(),
                    fmt::format("the file ends here, tensor '{}' needs it to reach {}; {} bytes are missing",
                                printable(name_), data_begin_ + end, end - (source_.size() - data_begin_)));
    }
    const std::int64_t offset = data_begin_ + begin;
    records_.push_back({{name_, *dtype_, std::move(*shape_), bytes, source_.name(), offset}, {offset, {}}});
  }

  const ByteSource& source_;
  std::int64_t data_begin_;
  Place place_ = Place::kStart;
  std::string name_;
  std::string field_;
  std::optional<DType> dtype_;
  std::optional<std::vector<std::int64_t>> shape_, offsets_;
  std::unordered_set<std::string> names_;
  std::vector<TensorRecord> records_;
};

void check_no_overlap(const ByteSource& source, const std::vector<TensorRecord>& records) {
  std::vector<const TensorRecord*> by_offset;
  for (const TensorRecord& record : records) {
    if (record.tensor.num_bytes > 0) by_offset.push_back(&record);
  }
  std::sort(by_offset.begin(), by_offset.end(), [](const TensorRecord* a, const TensorRecord* b) {
    return a->place.data_offset < b->place.data_offset;
  });
  for (std::size_t i = 1; i < by_offset.size(); ++i) {
    const TensorRecord& before = *by_offset[i - 1];
    const TensorRecord& after = *by_offset[i];
    if (before.place.data_offset + before.tensor.num_bytes > after.place.data_offset) {
      throw_corrupt(source, after.place.data_offset,
                    fmt::format("tensors '{}' and '{}' overlap", printable(before.tensor.name),
                                printable(after.tensor.name)));
    }
  }
}

}  // namespace

std::vector<TensorRecord> read_safetensors_header(ByteSource& source) {
  std::array<std::byte, kLengthBytes> length_bytes{};
  source.read_at(0, length_bytes);
  const std::uint64_t length = load_u64(length_bytes.data());
  if (length > kMaxSafetensorsHeaderBytes) {
    throw_corrupt(source, 0,
                  fmt::format("a header of {} bytes, the limit is {}", length, kMaxSafetensorsHeaderBytes),
                  "this is no safetensors file, or it is damaged: download it again");
  }
  const std::string header = source.read_text(kLengthBytes, static_cast<std::int64_t>(length));
  HeaderHandler handler(source, kLengthBytes + static_cast<std::int64_t>(length));
  if (header.empty() || header.front() != '{') {
    throw_corrupt(source, kLengthBytes, "the header does not begin with '{'");
  }
  nlohmann::json::sax_parse(header.begin(), header.end(), &handler);
  std::vector<TensorRecord> records = handler.take();
  check_no_overlap(source, records);
  return records;
}

}  // namespace sluice
