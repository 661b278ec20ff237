// The product over bitmaps of 16-bit nonzeros, for the table of fused products. Thread-safe.
#pragma once

#include "kernels/format/cuda/fused_cuda.h"

namespace sluice::kernels {

/// "bitmap_sm80": up to 128 rows of x.
FusedKernel bitmap_sm80_kernel();

}  // namespace sluice::kernels
