#include "core/format.h"

#include <array>
#include <utility>

namespace sluice {
namespace {
constexpr std::array<std::pair<WeightFormat, std::string_view>, 2> kNames{
    {{WeightFormat::kDenseF16, "dense_f16"}, {WeightFormat::kDenseBF16, "dense_bf16"}}};
}

std::string_view weight_format_name(WeightFormat format) {
  for (const auto& [value, name] : kNames) {
    if (value == format) return name;
  }
  return "?";
}

std::optional<WeightFormat> parse_weight_format(std::string_view name) {
  for (const auto& [value, known] : kNames) {
    if (known == name) return value;
  }
  return std::nullopt;
}

std::int64_t weight_bytes(WeightFormat format, std::int64_t rows, std::int64_t cols) {
  switch (format) {
    case WeightFormat::kDenseF16:
    case WeightFormat::kDenseBF16:
      return rows * cols * 2;
  }
  return 0;
}

}  // namespace sluice
