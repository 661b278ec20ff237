// The row counts for which products on a device are planned. Pure.
#pragma once

#include <bit>
#include <cstdint>

namespace sluice::kernels {

/// The row count for which CUDA chooses the algorithm of a product of `rows` rows: choosing takes a
/// millisecond, and ragged batches bring ever new counts. What is run once at each of these counts is not
/// slow later.
constexpr std::int64_t planned_rows(std::int64_t rows) {
  if (rows <= 1) return 1;
  if (rows <= 128) return (rows + 15) / 16 * 16;
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(rows)));
}

}  // namespace sluice::kernels
