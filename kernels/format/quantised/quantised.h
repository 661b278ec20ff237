// Quantised formats: codes of 8 or 4 bits with scales. The functions behind their rows in the table of
// formats (kernels/format/format.h); the layout and its exact arithmetic are in FORMAT.md. Pure functions,
// thread-safe.
#pragma once

#include "kernels/format/format.h"

namespace sluice::kernels {

/// What follows from encoding and columns.
struct QuantLayout {
  int bits = 8;
  bool has_minimum = false;    ///< codes count from a minimum; else around zero
  std::uint8_t zero_code = 0;  ///< of zero, or of the minimum; the columns of padding hold it
  std::int64_t cols = 0, group_cols = 0;
  std::int64_t num_groups = 0;   ///< of a row
  std::int64_t row_bytes = 0;    ///< of a row's codes, padded
  std::int64_t param_bytes = 0;  ///< of one group: scale, and minimum if there is one

  /// Of n rows, bytes of the parameters of one group of each, padded: from one group to the next.
  std::int64_t group_bytes(std::int64_t n) const;
  /// Bytes of a block of n rows.
  std::int64_t block_bytes(std::int64_t n) const;
};
/// 16 bytes of a row are eight 16-bit words; word j has columns j, j + 8, ... of those that they hold.
inline constexpr std::int64_t kQuantChunkBytes = 16, kQuantChunkWords = 8;

QuantLayout quant_layout(Encoding encoding, std::int64_t cols);

std::int64_t quantised_row_granule(std::int64_t cols);
std::int64_t quantised_max_run_bytes(Encoding encoding, std::int64_t num_rows, std::int64_t cols);
std::int64_t encode_quantised(Encoding encoding, const RowRun& run, std::span<std::byte> out);
void check_quantised(const WeightView& weight, const std::string& tensor_name);
void expand_quantised(const WeightView& weight, std::int64_t first_row, std::int64_t num_rows,
                      std::span<std::uint16_t> out);

namespace detail {

/// Where a row is stored.
template <class Byte>
struct QuantRow {
  Byte *codes, *params;      // params: of its first group
  std::int64_t group_bytes;  // from there to the next one's
};

/// One row to its codes and parameters, and back.
void quantise_row(const QuantLayout& layout, DType dtype, const std::uint16_t* values,
                  const QuantRow<std::byte>& row);
void dequantise_row(const QuantLayout& layout, DType dtype, const QuantRow<const std::byte>& row,
                    std::uint16_t* values);

}  // namespace detail
}  // namespace sluice::kernels
