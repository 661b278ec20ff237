// Picks rows of a matrix: the rows whose logits are wanted. The contract; no device types.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/matrix.h"
#include "kernels/device/stream.h"

namespace sluice::kernels {

/// y[i,:] = x[rows[i],:]
/// Shapes    rows [n], row numbers of x; y [n, cols], any stride; x and y are disjoint and of one type.
/// Types     any; the bytes are copied.
/// A row number outside x throws Error{kInternal}; on CUDA `rows` is device memory, which the host cannot
/// look at.
struct GatherRowsArgs {
  ConstMatrixView x = {};
  std::span<const std::int32_t> rows = {};
  MatrixView y = {};
};

std::string why_unsupported(const GatherRowsArgs& args, DeviceKind kind);
void gather_rows(const GatherRowsArgs& args, Stream& stream);

}  // namespace sluice::kernels
