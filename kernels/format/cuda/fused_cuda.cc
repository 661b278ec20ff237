#include "kernels/format/cuda/fused_cuda.h"

#include <vector>

#include "kernels/format/bank_csl/bank_csl_sm90.h"
#include "kernels/format/bitmap/fused_cuda.h"
#include "kernels/format/pairs24/pairs24_sm90.h"
#include "kernels/format/quantised/fused_sm80.h"
#include "kernels/format/quantised/fused_sm90.h"
#include "kernels/format/tiled_csl/fused_sm80_cuda.h"
#include "kernels/format/tiled_csl/tiled_csl_sm90.h"

namespace sluice::kernels {

std::span<const FusedKernel> fused_kernels() {
  static const std::vector<FusedKernel> kKernels = [] {
    std::vector<FusedKernel> all;
    if constexpr (SLUICE_WITH_SM90A) all = {kTiledCslSm90, kBankCslSm90, kPairs24Sm90};
    all.push_back(tiled_csl_sm80_kernel());
    all.push_back(bitmap_sm80_kernel());
    const std::span<const FusedKernel> quantised = quantised_sm80_kernels();
    all.insert(all.end(), quantised.begin(), quantised.end());
    if constexpr (SLUICE_WITH_SM90A) {
      const std::span<const FusedKernel> sm90 = quantised_sm90_kernels();
      all.insert(all.end(), sm90.begin(), sm90.end());
    }
    return all;
  }();
  return kKernels;
}

}  // namespace sluice::kernels
