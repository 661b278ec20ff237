#include "kernels/device/device.h"

#include "core/build_config.h"
#include "core/error.h"
#include "core/units.h"
#include "kernels/device/cpu/simd.h"
#include "kernels/device/cpu/thread_pool.h"

namespace sluice::kernels {
namespace {

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(ThreadPool& pool) : pool_(pool) {}
  DeviceKind kind() const override { return DeviceKind::kCpu; }
  std::string description() const override {
    return fmt::format("cpu, {} threads, {}", pool_.num_threads(), simd_target());
  }
  bool has_own_memory() const override { return false; }
  std::int64_t free_bytes() const override { return 0; }
  DeviceMemory allocate(std::int64_t /*bytes*/) override {
    SLUICE_ASSERT(has_own_memory());
    return {};
  }
  std::unique_ptr<DeviceResource> pin(std::span<std::byte> /*host*/) override { return nullptr; }
  std::unique_ptr<Stream> make_stream(StreamPriority /*priority*/,
                                      std::span<std::byte> /*workspace*/) override {
    return std::make_unique<Stream>(pool_);
  }

 private:
  ThreadPool& pool_;
};

}  // namespace

std::unique_ptr<Device> make_cpu_device(ThreadPool& pool) { return std::make_unique<CpuDevice>(pool); }

std::string cuda_devices_text() {
  if constexpr (kWithCuda) return detail::cuda_devices_text();
  return "cuda: not in this build";
}

bool cuda_device_present() {
  if constexpr (kWithCuda) return detail::cuda_device_present();
  return false;
}

std::int64_t cuda_free_bytes(int ordinal) { return make_cuda_device(ordinal)->free_bytes(); }

std::unique_ptr<Device> make_cuda_device([[maybe_unused]] int ordinal) {
  if constexpr (kWithCuda) return detail::make_cuda_device(ordinal);
  throw Error(Code::kUnsupported, "this build has no CUDA device",
              "build with `bash scripts/build.sh cuda`, or use --device cpu");
}

}  // namespace sluice::kernels
