#include <algorithm>

#include "kernels/device/cuda/check.h"
#include "kernels/device/cuda/copy_kernel.h"

namespace sluice::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kInFlight = 4;     // loads of a thread: host memory is a microsecond away
constexpr int kMostBlocks = 64;  // 64 x 256 x 4 x 16 bytes in flight are far more than the link holds

// Host memory may have changed since an earlier kernel read it: loads go there again (ld.cv).
template <class Word>
__global__ void __launch_bounds__(kThreads) copy_kernel(Word* to, const Word* from, std::int64_t count) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += kInFlight * step) {
    Word words[kInFlight];
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      if (i + k * step < count) words[k] = __ldcv(from + i + k * step);
    }
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      if (i + k * step < count) to[i + k * step] = words[k];
    }
  }
}

template <class Word>
void launch(std::byte* to, const std::byte* from, std::int64_t bytes, cudaStream_t stream) {
  const std::int64_t count = bytes / static_cast<std::int64_t>(sizeof(Word));
  const auto blocks = static_cast<unsigned>(
      std::min<std::int64_t>(kMostBlocks, (count + kThreads * kInFlight - 1) / (kThreads * kInFlight)));
  copy_kernel<<<blocks, kThreads, 0, stream>>>(reinterpret_cast<Word*>(to),
                                               reinterpret_cast<const Word*>(from), count);
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace

void copy_by_kernel(std::byte* to, const std::byte* from, std::int64_t bytes, cudaStream_t stream) {
  const std::uintptr_t bits = reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from) |
                              static_cast<std::uintptr_t>(bytes);
  if (bits % sizeof(uint4) == 0) {
    launch<uint4>(to, from, bytes, stream);
  } else if (bits % sizeof(unsigned) == 0) {
    launch<unsigned>(to, from, bytes, stream);
  } else {
    launch<unsigned char>(to, from, bytes, stream);
  }
}

}  // namespace sluice::kernels
