#include "kernels/bench/cuda/device_rates.h"

#include "core/units.h"
#include "kernels/bench/cuda/judge.h"
#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/ops/linear.h"

namespace sluice::kernels {

SpmmDeviceRates measure_device_rates(Device& device, Stream& stream, ColdTimer& timer) {
  const cudaStream_t raw = as_cuda(stream).raw();
  constexpr std::int64_t kCopyBytes = 2_GiB;
  constexpr std::int64_t kProduct = 8192;
  constexpr int kSamples = 7;
  SpmmDeviceRates rates;
  {
    const DeviceMemory memory = device.allocate(2 * kCopyBytes);
    std::byte* const data = memory.bytes.data();
    const ColdSamples samples = timer.time(
        raw, 1, kSamples, 1.0, [&](int /*copy*/) { stream.copy(data + kCopyBytes, data, kCopyBytes); });
    rates.copy_bytes_per_sec = 2 * static_cast<double>(kCopyBytes) / samples.median_sec;
  }
  const std::int64_t count = kProduct * kProduct;
  const DeviceMemory memory = device.allocate(3 * count * 2);
  std::byte* const data = memory.bytes.data();
  fill_random_half(data, 2 * count, raw);
  const ColdSamples samples = timer.time(raw, 1, kSamples, 1.0, [&](int /*copy*/) {
    linear({.x = {data, DType::kF16, kProduct, kProduct, kProduct},
            .weight = {WeightFormat::kDenseF16,
                       {data + count * 2, static_cast<std::size_t>(count * 2)},
                       kProduct,
                       kProduct},
            .y = {data + 2 * count * 2, DType::kF16, kProduct, kProduct, kProduct}},
           stream);
  });
  rates.product_flops_per_sec = 2.0 * static_cast<double>(count * kProduct) / samples.median_sec;
  return rates;
}

}  // namespace sluice::kernels
