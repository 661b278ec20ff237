// Products in parts: over slices of an expanded weight, which are columns of the result, and over runs of
// rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "kernels/ops/expand.h"
#include "kernels/ops/linear.h"

namespace sluice::kernels::detail {

/// The product's output features [first, first + rows), whose expanded weights are `expanded`.
inline LinearArgs slice_of(const LinearArgs& args, std::int64_t first, std::int64_t rows,
                           std::span<const std::byte> expanded) {
  LinearArgs part = args;
  part.scratch = {};
  part.weight = {{Encoding::kDense, args.weight.format.dtype}, expanded, rows, args.weight.cols};
  part.y.data += first * dtype_bytes(args.y.dtype);
  part.y.cols = rows;
  if (args.bias) {
    part.bias.data += first * dtype_bytes(args.bias.dtype);
    part.bias.size = rows;
  }
  if (args.residual.data != nullptr) {
    part.residual.data += first * dtype_bytes(args.residual.dtype);
    part.residual.cols = rows;
  }
  return part;
}

/// The product's rows [first, first + rows).
inline LinearArgs rows_of(const LinearArgs& args, std::int64_t first, std::int64_t rows) {
  LinearArgs part = args;
  part.x = args.x.slice_rows(first, rows);
  part.y = args.y.slice_rows(first, rows);
  if (args.residual.data != nullptr) part.residual = args.residual.slice_rows(first, rows);
  return part;
}

/// Rows of the slices of a product.
inline std::int64_t slice_rows(const LinearArgs& args, DeviceKind kind) {
  const WeightView& weight = args.weight;
  const auto scratch = static_cast<std::int64_t>(args.scratch.size()) / (kind == DeviceKind::kCuda ? 2 : 1);
  return expanded_slice_rows(weight.format, weight.rows, weight.cols,
                             std::min(expanded_slice_bytes(kind), scratch));
}

/// Calls body(first row, number of rows) for each slice, in order.
template <class Body>
void for_each_slice(const LinearArgs& args, DeviceKind kind, const Body& body) {
  const std::int64_t rows = slice_rows(args, kind);
  for (std::int64_t first = 0; first < args.weight.rows; first += rows)
    body(first, std::min(rows, args.weight.rows - first));
}

}  // namespace sluice::kernels::detail
