// A product over an encoded weight: by the kernel that was measured to be the fastest on this device, or by
// expansion. Slices are expanded on a second stream, each while the product over the one before runs, into
// two buffers in turn.
#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/device/cuda/fill_ahead.h"
#include "kernels/format/cuda/expand_cuda.cuh"
#include "kernels/ops/cuda_kernels.h"
#include "kernels/ops/linear_paths_cuda.h"
#include "kernels/ops/linear_slices.h"

namespace sluice::kernels::detail {
namespace {

void linear_fused(const LinearArgs& args, const FusedKernel& kernel, const FusedMemory& memory,
                  CudaStream& stream) {
  for (std::int64_t first = 0; first < args.y.rows; first += kernel.max_rows) {
    const std::int64_t rows = std::min(kernel.max_rows, args.y.rows - first);
    kernel.run(rows_of(args, first, rows), memory, stream.raw());
  }
}

}  // namespace

void linear_expanded_cuda(const LinearArgs& args, Stream& stream) {
  FillAhead& ahead = as_cuda(stream).start_fills(args.scratch);
  for_each_slice(args, DeviceKind::kCuda, [&](std::int64_t first, std::int64_t rows) {
    const auto bytes = static_cast<std::size_t>(rows * args.weight.cols * 2);
    const std::span<std::byte> slice = ahead.next_buffer().first(bytes);
    expand_on({.weight = args.weight, .first_row = first, .num_rows = rows, .out = slice}, ahead.stream());
    ahead.filled();
    linear_cuda(slice_of(args, first, rows, slice), stream);
    ahead.read();
  });
}

void linear_encoded_cuda(const LinearArgs& args, Stream& stream) {
  CudaStream& cuda = as_cuda(stream);
  // A row's bits may not depend on how many rows there are: then all products go one way.
  const bool may_choose = cuda.batch_invariance() == BatchInvariance::kOff;
  const FusedMemory memory{.counters = cuda.counters(), .scratch = cuda.workspace()};
  const FusedKernel* kernel = may_choose ? cuda.linear_paths().kernel_for(args, memory.bytes()) : nullptr;
  if (kernel != nullptr) return linear_fused(args, *kernel, memory, cuda);
  linear_expanded_cuda(args, stream);
}

}  // namespace sluice::kernels::detail
