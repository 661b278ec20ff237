// The product over Tiled-CSL of compute capability 8.0 and later, for the table of fused products.
// Thread-safe.
#pragma once

#include "kernels/format/cuda/fused_cuda.h"

namespace sluice::kernels {

/// "tiled_csl_sm80": up to 128 rows of x.
FusedKernel tiled_csl_sm80_kernel();

}  // namespace sluice::kernels
