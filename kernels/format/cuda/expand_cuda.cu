#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/format/cuda/expand_cuda.cuh"
#include "kernels/ops/cuda_kernels.h"

namespace sluice::kernels::detail {

void expand_on(const ExpandArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0 || args.weight.cols == 0) return;
  switch (args.weight.format.encoding) {
    case Encoding::kTiledCsl:
      return expand_tiled_csl_cuda(args, stream);
    case Encoding::kBankCsl:
      return expand_bank_csl_cuda(args, stream);
    case Encoding::kBitmap:
    case Encoding::kBitmapInt8:
    case Encoding::kBitmapInt4:
      return expand_bitmap_cuda(args, stream);
    case Encoding::kPairs24:
      return expand_pairs24_cuda(args, stream);
    default:
      return expand_quantised_cuda(args, stream);
  }
}

void expand_cuda(const ExpandArgs& args, Stream& stream) { expand_on(args, as_cuda(stream).raw()); }

}  // namespace sluice::kernels::detail
