// Products over quantised weights in their stored form on sm_90a, for the table of fused products.
// Thread-safe.
#pragma once

#include <span>

#include "kernels/format/cuda/fused_cuda.h"

namespace sluice::kernels {

/// int4 in all its forms and int8, up to 64 rows of x.
std::span<const FusedKernel> quantised_sm90_kernels();

}  // namespace sluice::kernels
