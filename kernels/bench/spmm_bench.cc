#include "kernels/bench/spmm_bench.h"

#include "core/build_config.h"
#include "core/error.h"

namespace sluice::kernels {

std::unique_ptr<SpmmBench> make_spmm_bench(Device& device, [[maybe_unused]] ThreadPool& pool,
                                           [[maybe_unused]] const SpmmBench::Options& options) {
  if constexpr (kWithCuda) {
    if (device.kind() == DeviceKind::kCuda) return detail::make_spmm_bench_cuda(device, pool, options);
  }
  throw Error(Code::kUnsupported, fmt::format("{} has no sparse products of its own", device.description()),
              "give --device cuda; `sluice bench formats` measures encoding and expansion on the CPU");
}

}  // namespace sluice::kernels
