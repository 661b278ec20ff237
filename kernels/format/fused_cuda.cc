#include "kernels/format/fused_cuda.h"

#include <array>

#include "kernels/format/bank_csl/bank_csl_sm90.h"
#include "kernels/format/tiled_csl/tiled_csl_sm90.h"

namespace sluice::kernels {

std::span<const FusedKernel> fused_kernels() {
  static const std::array kKernels = {kTiledCslSm90, kBankCslSm90};
  return kKernels;
}

}  // namespace sluice::kernels
