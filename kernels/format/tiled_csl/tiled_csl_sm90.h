// The fused product of a tiled_csl weight on sm_90a. Thread-safe.
#pragma once

#include "kernels/format/cuda/fused_cuda.h"

namespace sluice::kernels {

extern const FusedKernel kTiledCslSm90;

}  // namespace sluice::kernels
