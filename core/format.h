// Stored formats of weight matrices: ids and sizes. `policy` plans with these sizes and `kernels/format`
// holds the codecs. Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace sluice {

/// Written to disk by name; the numbers may change.
enum class WeightFormat : std::uint8_t { kDenseF16, kDenseBF16 };

/// "dense_f16", ...
std::string_view weight_format_name(WeightFormat format);
std::optional<WeightFormat> parse_weight_format(std::string_view name);

/// Exact bytes of a [rows, cols] tensor in `format` (a vector has one row).
std::int64_t weight_bytes(WeightFormat format, std::int64_t rows, std::int64_t cols);

}  // namespace sluice
