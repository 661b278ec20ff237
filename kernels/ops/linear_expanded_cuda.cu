// A product over an encoded weight without a kernel of its own: slices are expanded on a second stream, each
// while the product over the one before runs, into two buffers in turn that stay in L2.
#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/device/cuda/fill_ahead.h"
#include "kernels/format/expand_cuda.cuh"
#include "kernels/ops/cuda_kernels.h"
#include "kernels/ops/linear_slices.h"

namespace sluice::kernels::detail {

void linear_expanded_cuda(const LinearArgs& args, Stream& stream) {
  CudaStream& cuda = as_cuda(stream);
  FillAhead& ahead = cuda.start_fills(args.scratch);
  for_each_slice(args.weight, [&](std::int64_t first, std::int64_t rows) {
    const auto bytes = static_cast<std::size_t>(rows * args.weight.cols * 2);
    const std::span<std::byte> slice = ahead.next_buffer().first(bytes);
    expand_on({.weight = args.weight, .first_row = first, .num_rows = rows, .out = slice}, ahead.stream());
    ahead.filled();
    linear_cuda(slice_of(args, first, rows, slice), stream);
    ahead.read();
  });
}

}  // namespace sluice::kernels::detail
