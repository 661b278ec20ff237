// The fused product of a bank_csl weight on sm_90a. Thread-safe.
#pragma once

#include "kernels/format/cuda/fused_cuda.h"

namespace sluice::kernels {

extern const FusedKernel kBankCslSm90;

}  // namespace sluice::kernels
