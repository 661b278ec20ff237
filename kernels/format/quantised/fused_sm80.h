// Products over quantised weights in their stored form, for the table of fused products. Thread-safe.
#pragma once

#include <span>

#include "kernels/format/cuda/fused_cuda.h"

namespace sluice::kernels {

/// int4 in all its forms and int8, up to 64 rows of x; compute capability 8.0 and later.
std::span<const FusedKernel> quantised_sm80_kernels();

}  // namespace sluice::kernels
