// A product over a weight that is expanded in slices of its rows, which are columns of the result: what the
// devices share.
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

/// Calls body(first row, number of rows) for each slice of the weight, in order.
template <class Body>
void for_each_slice(const WeightView& weight, const Body& body) {
  const std::int64_t slice_rows = expanded_slice_rows(weight.format, weight.rows, weight.cols);
  for (std::int64_t first = 0; first < weight.rows; first += slice_rows)
    body(first, std::min(slice_rows, weight.rows - first));
}

}  // namespace sluice::kernels::detail
