// Tiling. One block per token: a row of a table is 1 to 56 KiB, so that a block's threads read it coalesced.
#include <algorithm>

#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/ops/cuda_kernels.h"
#include "kernels/ops/elements.cuh"

namespace sluice::kernels {
namespace {

constexpr int kMaxThreads = 512;

template <class Act, class Stored>
struct Params {
  const std::int32_t* ids;
  const Stored* table;
  Act* y;
  std::int64_t y_stride;
  std::int64_t dim;
};

/// kWidth elements a thread at a time: kVector if all rows are aligned, else 1.
template <class Act, class Stored, int kWidth, bool kAccumulate>
__global__ void __launch_bounds__(kMaxThreads)
    embedding_kernel(const __grid_constant__ Params<Act, Stored> p) {
  const std::int64_t token = blockIdx.x;
  const Stored* from = p.table + p.ids[token] * p.dim;
  Act* to = p.y + token * p.y_stride;
  for (std::int64_t i = std::int64_t{threadIdx.x} * kWidth; i < p.dim;
       i += std::int64_t{blockDim.x} * kWidth) {
    if constexpr (kWidth == kVector) {
      const Vector<Stored> value = load_vector(from + i);
      Vector<Act> result;
      if constexpr (kAccumulate) result = load_vector(to + i);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        const float x = widen(value.lane[j]);
        result.lane[j] = narrow<Act>(kAccumulate ? widen(result.lane[j]) + x : x);
      }
      store_vector(to + i, result);
    } else {
      const float x = widen(from[i]);
      to[i] = narrow<Act>(kAccumulate ? widen(to[i]) + x : x);
    }
  }
}

template <class Act, class Stored>
void launch(const EmbeddingArgs& args, CudaStream& stream) {
  const Params<Act, Stored> p{args.ids.data(), reinterpret_cast<const Stored*>(args.table.data.data()),
                              reinterpret_cast<Act*>(args.y.data), args.y.stride, args.table.cols};
  const bool wide =
      p.dim % kVector == 0 && is_vector_aligned(p.table, p.dim * 2) && is_vector_aligned(p.y, p.y_stride * 2);
  const std::int64_t steps = wide ? p.dim / kVector : p.dim;
  const auto threads = static_cast<unsigned>(std::min<std::int64_t>((steps + 31) / 32 * 32, kMaxThreads));
  const auto blocks = static_cast<unsigned>(args.ids.size());
  const auto run = [&](auto kernel) { kernel<<<blocks, threads, 0, stream.raw()>>>(p); };
  if (wide) {
    args.accumulate ? run(embedding_kernel<Act, Stored, kVector, true>)
                    : run(embedding_kernel<Act, Stored, kVector, false>);
  } else {
    args.accumulate ? run(embedding_kernel<Act, Stored, 1, true>)
                    : run(embedding_kernel<Act, Stored, 1, false>);
  }
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace

namespace detail {

void embedding_cuda(const EmbeddingArgs& args, Stream& stream) {
  if (args.y.rows == 0 || args.y.cols == 0) return;
  with_element_type(args.y.dtype, [&](auto act) {
    with_element_type(args.table.format.dtype,
                      [&](auto stored) { launch<decltype(act), decltype(stored)>(args, as_cuda(stream)); });
  });
}

}  // namespace detail
}  // namespace sluice::kernels
