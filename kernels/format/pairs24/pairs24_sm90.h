// The fused product of a pairs24 weight on sm_90a. Thread-safe.
#pragma once

#include "kernels/format/cuda/fused_cuda.h"

namespace sluice::kernels {

extern const FusedKernel kPairs24Sm90;

}  // namespace sluice::kernels
