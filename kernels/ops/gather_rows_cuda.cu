// Tiling. One block per row; its threads copy the row's bytes in the widest words that all rows are aligned
// to.
#include <algorithm>

#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/ops/cuda_kernels.h"

namespace sluice::kernels {
namespace {

constexpr int kMaxThreads = 512;

/// Strides and lengths in words.
template <class Word>
struct Params {
  const Word* x;
  const std::int32_t* rows;
  Word* y;
  std::int64_t x_stride, y_stride, row_words;
};

template <class Word>
__global__ void __launch_bounds__(kMaxThreads) gather_rows_kernel(const __grid_constant__ Params<Word> p) {
  const std::int64_t row = blockIdx.x;
  const Word* from = p.x + p.rows[row] * p.x_stride;
  Word* to = p.y + row * p.y_stride;
  for (std::int64_t i = threadIdx.x; i < p.row_words; i += blockDim.x) to[i] = from[i];
}

template <class Word>
bool launch_if_aligned(const GatherRowsArgs& args, CudaStream& stream) {
  constexpr auto kBytes = static_cast<std::int64_t>(sizeof(Word));
  const std::int64_t element = dtype_bytes(args.x.dtype);
  const auto address = [](const void* data) {
    return static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(data));
  };
  for (const std::int64_t quantity : {address(args.x.data), address(args.y.data), args.x.stride * element,
                                      args.y.stride * element, args.x.cols * element}) {
    if (quantity % kBytes != 0) return false;
  }
  const Params<Word> p{reinterpret_cast<const Word*>(args.x.data), args.rows.data(),
                       reinterpret_cast<Word*>(args.y.data),       args.x.stride * element / kBytes,
                       args.y.stride * element / kBytes,           args.x.cols * element / kBytes};
  const auto threads =
      static_cast<unsigned>(std::min<std::int64_t>((p.row_words + 31) / 32 * 32, kMaxThreads));
  gather_rows_kernel<<<static_cast<unsigned>(args.y.rows), threads, 0, stream.raw()>>>(p);
  CUDA_CHECK(cudaGetLastError());
  return true;
}

}  // namespace

namespace detail {

void gather_rows_cuda(const GatherRowsArgs& args, Stream& stream) {
  CudaStream& cuda = as_cuda(stream);
  (void)(launch_if_aligned<uint4>(args, cuda) || launch_if_aligned<std::uint32_t>(args, cuda) ||
         launch_if_aligned<std::uint16_t>(args, cuda) || launch_if_aligned<std::uint8_t>(args, cuda));
}

}  // namespace detail
}  // namespace sluice::kernels
