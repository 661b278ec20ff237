// Times a call of the device from a cold L2: calls go round through copies of the weights that are together
// several times as large as the L2, and a kernel that only waits runs ahead of each sample, so that the
// samples hold no gaps of the host. CUDA builds only. Used by one thread.
#pragma once

#include <cstdint>
#include <functional>

#include <cuda_runtime_api.h>

#include "kernels/device/cuda/handle.h"

namespace sluice::kernels {

struct ColdSamples {
  double median_sec = 0, low_sec = 0, high_sec = 0;  ///< of one call
};

class ColdTimer {
 public:
  ColdTimer();

  /// `call(copy)` enqueues one call over copy 0..copies - 1 on `stream`. At most `samples` samples, fewer (at
  /// least 3) where they would take longer than `budget_sec` in all.
  ColdSamples time(cudaStream_t stream, int copies, int samples, double budget_sec,
                   const std::function<void(int copy)>& call);

 private:
  UniqueEvent start_, end_;
};

/// How many copies of so many bytes make the L2 cold: together at least 256 MiB and 4 times the L2.
int cold_copies(std::int64_t bytes);

}  // namespace sluice::kernels
