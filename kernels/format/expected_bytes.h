// How large a matrix will be that nobody has encoded yet: what a plan for a format counts with. Pure,
// thread-safe.
#pragma once

#include <cstdint>

#include "core/format.h"

namespace sluice::kernels {

/// Bytes of a [rows, cols] matrix of which `sparsity` (0 to 1) are zeros, evenly spread. Exact for formats of
/// fixed size; for the others a sample is encoded, whose padding and lists count, and one encoded matrix is
/// within 0.2 %.
std::int64_t expected_bytes(WeightFormat format, std::int64_t rows, std::int64_t cols, double sparsity);

}  // namespace sluice::kernels
