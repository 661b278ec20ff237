#include "kernels/format/quantised/quantised.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/units.h"
#include "kernels/format/quantised/scale.h"
#include "kernels/format/tile_table.h"

namespace sluice::kernels {
namespace {

constexpr std::int64_t kAlign = 16;

/// Where a row of a matrix of so many is, whose bytes begin at `bytes`.
template <class Byte>
detail::QuantRow<Byte> stored_row(const QuantLayout& layout, std::int64_t row, std::int64_t num_rows,
                                  Byte* bytes) {
  const std::int64_t first = row / kQuantBlockRows * kQuantBlockRows;
  const std::int64_t n = std::min(kQuantBlockRows, num_rows - first);
  Byte* const block = bytes + row / kQuantBlockRows * layout.block_bytes(kQuantBlockRows);
  return {block + (row - first) * layout.row_bytes,
          block + n * layout.row_bytes + (row - first) * layout.param_bytes, layout.group_bytes(n)};
}

/// Calls body(block, group, offset, bytes) for what follows the parameters of each group. Only those of a
/// last block may be followed by anything.
template <class Body>
void for_each_padding(const QuantLayout& layout, std::int64_t num_rows, const Body& body) {
  const std::int64_t block = num_rows / kQuantBlockRows;
  const std::int64_t n = num_rows % kQuantBlockRows;
  const std::int64_t used = n * layout.param_bytes;
  const std::int64_t params = block * layout.block_bytes(kQuantBlockRows) + n * layout.row_bytes;
  for (std::int64_t group = 0; group < layout.num_groups; ++group) {
    body(block, group, params + group * layout.group_bytes(n) + used, layout.group_bytes(n) - used);
  }
}
static_assert(kQuantBlockRows * sizeof(std::uint16_t) % kAlign == 0);

std::uint16_t load_16(const std::byte* from) {
  std::uint16_t value = 0;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

/// Checks the rows of one matrix; every message begins with tensor and place.
class RowCheck {
 public:
  RowCheck(const WeightView& weight, const QuantLayout& layout, const std::string& tensor_name)
      : weight_(weight), layout_(layout), tensor_name_(tensor_name) {}

  void run(std::int64_t row) {
    row_ = row;
    const auto stored = stored_row(layout_, row, weight_.rows, weight_.data.data());
    codes_ = stored.codes;
    check_padding();
    for (std::int64_t g = 0; g < layout_.num_groups; ++g) {
      check_group(g, stored.params + g * stored.group_bytes);
    }
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(
        Code::kCorrupt,
        fmt::format("tensor {}: block {}, row {}: {}", tensor_name_, row_ / kQuantBlockRows, row_, what),
        kDamagedStore);
  }

  int code(std::int64_t col) const {
    const std::int64_t chunk_cols = kQuantChunkBytes * 8 / layout_.bits;
    const std::int64_t word = col % kQuantChunkWords;
    const std::int64_t bit = col % chunk_cols / kQuantChunkWords * layout_.bits;
    const auto byte = std::to_integer<int>(codes_[col / chunk_cols * kQuantChunkBytes + word * 2 + bit / 8]);
    return byte >> bit % 8 & ((1 << layout_.bits) - 1);
  }

  void check_padding() const {
    const std::int64_t columns = layout_.row_bytes * 8 / layout_.bits;
    for (std::int64_t col = layout_.cols; col < columns; ++col) {
      if (code(col) != layout_.zero_code) {
        refuse(fmt::format("its padding behind {} columns holds code {} instead of {}", layout_.cols,
                           code(col), layout_.zero_code));
      }
    }
  }

  void check_group(std::int64_t group, const std::byte* params) const {
    const DType dtype = weight_.format.dtype;
    const std::uint16_t scale = load_16(params);
    float minimum = 0.0F;
    if (layout_.has_minimum) {
      const std::uint16_t bits = load_16(params + 2);
      minimum = value_of(bits, dtype);
      if (!is_finite_value(bits, dtype) || bits == 0x8000U) {
        refuse(fmt::format("group {}: its minimum is {:.9g}", group, minimum));
      }
    }
    const int limit = layout_.has_minimum ? kAsymmetricLimit : symmetric_limit(layout_.bits);
    const char* why = why_bad_scale(scale, minimum, limit, dtype);
    if (why != nullptr) {
      refuse(fmt::format("group {}: its scale {:.9g} {}", group, value_of(scale, dtype), why));
    }

    const std::int64_t first = group * layout_.group_cols;
    const std::int64_t end = std::min(first + layout_.group_cols, layout_.cols);
    for (std::int64_t col = first; col < end; ++col) {
      if (scale == 0 ? code(col) != layout_.zero_code : !layout_.has_minimum && code(col) == 0) {
        refuse(fmt::format("column {} has code {}, which scale {:.9g} never has", col, code(col),
                           value_of(scale, dtype)));
      }
    }
  }

  const WeightView& weight_;
  const QuantLayout& layout_;
  const std::string& tensor_name_;
  std::int64_t row_ = 0;
  const std::byte* codes_ = nullptr;
};

}  // namespace

std::int64_t QuantLayout::group_bytes(std::int64_t n) const { return align_up(n * param_bytes, kAlign); }

std::int64_t QuantLayout::block_bytes(std::int64_t n) const {
  return n * row_bytes + num_groups * group_bytes(n);
}

QuantLayout quant_layout(Encoding encoding, std::int64_t cols) {
  QuantLayout layout;
  layout.bits = element_bits(encoding);
  layout.has_minimum = encoding == Encoding::kInt4G64 || encoding == Encoding::kInt4G128;
  layout.zero_code = static_cast<std::uint8_t>(layout.has_minimum ? 0 : symmetric_bias(layout.bits));
  layout.cols = cols;
  layout.group_cols = quant_group_cols(encoding, cols);
  layout.num_groups = div_up(cols, layout.group_cols);
  layout.row_bytes = align_up(div_up(cols * layout.bits, 8), kAlign);
  layout.param_bytes = layout.has_minimum ? 4 : 2;
  return layout;
}

std::int64_t quantised_row_granule(std::int64_t) { return kQuantBlockRows; }

std::int64_t quantised_max_run_bytes(Encoding encoding, std::int64_t num_rows, std::int64_t cols) {
  return weight_bytes({encoding, DType::kF16}, num_rows, cols);
}

std::int64_t encode_quantised(Encoding encoding, const RowRun& run, std::span<std::byte> out) {
  const QuantLayout layout = quant_layout(encoding, run.tensor->cols);
  const std::int64_t bytes = weight_bytes({encoding, run.dtype}, run.num_rows, layout.cols);
  SLUICE_ASSERT(run.first_row % kQuantBlockRows == 0 && static_cast<std::int64_t>(out.size()) >= bytes);
  for (std::int64_t row = 0; row < run.num_rows; ++row) {
    detail::quantise_row(layout, run.dtype, run.values.data() + row * layout.cols,
                         stored_row(layout, row, run.num_rows, out.data()));
  }
  for_each_padding(layout, run.num_rows,
                   [&](std::int64_t, std::int64_t, std::int64_t first, std::int64_t count) {
                     std::memset(out.data() + first, 0, static_cast<std::size_t>(count));
                   });
  return bytes;
}

void check_quantised(const WeightView& weight, const std::string& tensor_name) {
  const std::int64_t expected = weight_bytes(weight.format, weight.rows, weight.cols);
  SLUICE_CHECK(static_cast<std::int64_t>(weight.data.size()) == expected, Code::kCorrupt,
               fmt::format("tensor {}: {} bytes instead of {}", tensor_name, weight.data.size(), expected),
               kDamagedStore);
  const QuantLayout layout = quant_layout(weight.format.encoding, weight.cols);
  RowCheck check(weight, layout, tensor_name);
  for (std::int64_t row = 0; row < weight.rows; ++row) check.run(row);
  for_each_padding(
      layout, weight.rows,
      [&](std::int64_t block, std::int64_t group, std::int64_t first, std::int64_t count) {
        const auto padding =
            weight.data.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
        SLUICE_CHECK(
            std::all_of(padding.begin(), padding.end(), [](std::byte b) { return b == std::byte{0}; }),
            Code::kCorrupt,
            fmt::format("tensor {}: block {}: the {} bytes behind the parameters of group {} are not zero",
                        tensor_name, block, count, group),
            kDamagedStore);
      });
}

void expand_quantised(const WeightView& weight, std::int64_t first_row, std::int64_t num_rows,
                      std::span<std::uint16_t> out) {
  SLUICE_ASSERT(static_cast<std::int64_t>(out.size()) == num_rows * weight.cols);
  const QuantLayout layout = quant_layout(weight.format.encoding, weight.cols);
  for (std::int64_t i = 0; i < num_rows; ++i) {
    detail::dequantise_row(layout, weight.format.dtype,
                           stored_row(layout, first_row + i, weight.rows, weight.data.data()),
                           out.data() + i * weight.cols);
  }
}

}  // namespace sluice::kernels
