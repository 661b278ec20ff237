#include "kernels/bench/cuda/cold_timer.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "core/units.h"
#include "kernels/bench/cuda/judge.h"

namespace sluice::kernels {
namespace {

UniqueEvent make_event() {
  cudaEvent_t event = nullptr;
  CUDA_CHECK(cudaEventCreate(&event));
  return UniqueEvent(event);
}

}  // namespace

ColdTimer::ColdTimer() : start_(make_event()), end_(make_event()) {}

ColdSamples ColdTimer::time(cudaStream_t stream, int copies, int samples, double budget_sec,
                            const std::function<void(int copy)>& call) {
  constexpr int kFewestCalls = 4;
  constexpr int kFewestSamples = 3;
  int calls = 1;
  int next = 0;
  double host_sec = 0;
  const auto sample = [&](double delay_sec) {
    spin(delay_sec, stream);
    const auto before = std::chrono::steady_clock::now();
    CUDA_CHECK(cudaEventRecord(start_.get(), stream));
    for (int i = 0; i < calls; ++i, next = (next + 1) % copies) call(next);
    CUDA_CHECK(cudaEventRecord(end_.get(), stream));
    host_sec = std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count();
    CUDA_CHECK(cudaEventSynchronize(end_.get()));
    float milliseconds = 0;
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, start_.get(), end_.get()));
    return static_cast<double>(milliseconds) * 1e-3;
  };
  call(0);  // plans are made, modules loaded
  CUDA_CHECK(cudaStreamSynchronize(stream));
  // Several calls a sample, unless a single one outlasts what it has to hide.
  const double one_sec = sample(1e-4);
  if (one_sec < budget_sec / kFewestCalls) calls = std::max(copies, kFewestCalls);
  const double first_sec = calls == 1 ? one_sec : sample(1e-4);
  const double delay_sec = std::min(5e-3, 1.5 * host_sec + 20e-6);
  const int affordable = static_cast<int>(budget_sec / (first_sec + delay_sec));
  std::vector<double> seconds(static_cast<std::size_t>(std::clamp(affordable, kFewestSamples, samples)));
  for (double& value : seconds) value = sample(delay_sec) / calls;
  std::ranges::sort(seconds);
  return {seconds[seconds.size() / 2], seconds.front(), seconds.back()};
}

int cold_copies(std::int64_t bytes) {
  int device = 0;
  int l2_bytes = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  CUDA_CHECK(cudaDeviceGetAttribute(&l2_bytes, cudaDevAttrL2CacheSize, device));
  const std::int64_t wanted = std::max(256_MiB, 4 * std::int64_t{l2_bytes});
  return static_cast<int>(std::clamp<std::int64_t>(div_up(wanted, std::max<std::int64_t>(bytes, 1)), 1, 256));
}

}  // namespace sluice::kernels
