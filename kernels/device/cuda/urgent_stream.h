// The stream of small transfers that must not queue behind bulk ones. A copy engine works through what all
// streams have given it in that order: behind the pieces of a layer that wait there, a copy of a few
// kilobytes takes as long as the layer. So copies between the device and pinned memory are made by a kernel,
// which shares the link with the engine, and only large ones and those of pageable memory by the engine.
#pragma once

#include "kernels/device/cuda/cuda_stream.h"

namespace sluice::kernels {

class UrgentStream final : public CudaStream {
 public:
  /// As CudaStream's, without a workspace.
  UrgentStream(const Origin& origin, cublasLtHandle_t blas)
      : CudaStream(StreamPriority::kUrgent, origin, blas, {}) {}
  void copy(std::byte* to, const std::byte* from, std::int64_t bytes) override;

  /// The largest copy that a kernel makes.
  static constexpr std::int64_t kMostByKernel = std::int64_t{4} << 20;
};

}  // namespace sluice::kernels
