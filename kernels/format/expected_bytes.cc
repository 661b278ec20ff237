#include "kernels/format/expected_bytes.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/format/format.h"

namespace sluice::kernels {
namespace {

double between(const ByteRange& range, double nonzeros) {
  return static_cast<double>(range.min) + nonzeros * static_cast<double>(range.max - range.min);
}

}  // namespace

std::int64_t expected_bytes(WeightFormat format, std::int64_t rows, std::int64_t cols, double sparsity) {
  if (has_fixed_size(format.encoding)) return weight_bytes(format, rows, cols);
  constexpr std::int64_t kSampleRows = 512;
  constexpr std::int64_t kSampleCols = 1024;
  const TensorSpec sample{
      .name = "sample", .rows = std::min(rows, kSampleRows), .cols = std::min(cols, kSampleCols)};
  std::vector<std::uint16_t> values(static_cast<std::size_t>(sample.rows * sample.cols));
  std::int64_t nonzeros = 0;
  std::uint32_t state = 1;  // the generator of Numerical Recipes, section 7.1
  const auto random = [&state] { return (state = state * 1664525 + 1013904223) >> 8; };
  constexpr double kHighest = 1 << 24;
  for (std::uint16_t& value : values) {
    if (random() < sparsity * kHighest) continue;
    value = static_cast<std::uint16_t>(0x3C00 + random() % 0x300);  // finite as fp16 and as bf16
    ++nonzeros;
  }
  const double elements = static_cast<double>(values.size());
  // The sample's own share of nonzeros is not quite the one asked for.
  const double beside_nonzeros =
      static_cast<double>(encode_matrix(sample, format, values).size()) -
      between(weight_byte_range(format, sample.rows, sample.cols), static_cast<double>(nonzeros) / elements);
  const ByteRange range = weight_byte_range(format, rows, cols);
  const double bytes =
      between(range, 1 - sparsity) + beside_nonzeros * static_cast<double>(rows * cols) / elements;
  return std::clamp(static_cast<std::int64_t>(bytes), range.min, range.max);
}

}  // namespace sluice::kernels
