// The CUDA device: one GPU, its memory as one allocation, host memory registered for DMA.
#include <chrono>
#include <cstdint>

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "core/error.h"
#include "core/log.h"
#include "core/units.h"
#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/device/cuda/handle.h"
#include "kernels/device/cuda/urgent_stream.h"
#include "kernels/device/device.h"

namespace sluice::kernels {
namespace {

/// The runtime starts a device where a thread first needs one: some hundred MB of the memory of device 0, if
/// the thread has not named another. So whatever calls it, releases included, comes after this.
void use_device(int ordinal) { CUDA_CHECK(cudaSetDevice(ordinal)); }
void use_device_to_release(int ordinal) noexcept {
  if (const cudaError_t error = cudaSetDevice(ordinal); error != cudaSuccess)
    log_cuda_failure(error, "cudaSetDevice");
}

class GpuMemory final : public DeviceResource {
 public:
  GpuMemory(void* memory, int ordinal) : ordinal_(ordinal), memory_(memory) {}
  ~GpuMemory() override { use_device_to_release(ordinal_); }
  GpuMemory(const GpuMemory&) = delete;
  GpuMemory& operator=(const GpuMemory&) = delete;
  std::byte* data() const { return static_cast<std::byte*>(memory_.get()); }
  std::int64_t bytes_to_alignment() const {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.get());
    return static_cast<std::int64_t>((kPageAlign - address % kPageAlign) % kPageAlign);
  }

 private:
  const int ordinal_;
  UniqueDeviceMemory memory_;
};

class Registration final : public DeviceResource {
 public:
  Registration(void* memory, int ordinal) : ordinal_(ordinal), memory_(memory) {}
  ~Registration() override { use_device_to_release(ordinal_); }
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;

 private:
  const int ordinal_;
  UniqueRegistration memory_;
};

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int ordinal) : ordinal_(ordinal) {
    use_device(ordinal_);
    CUDA_CHECK(cudaGetDeviceProperties(&properties_, ordinal));
    check_architecture(properties_.name, properties_.major, properties_.minor);
    check_kernel_built(probe_kernel_address(), properties_.name, properties_.major, properties_.minor);
  }
  ~CudaDevice() override { use_device_to_release(ordinal_); }
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  DeviceKind kind() const override { return DeviceKind::kCuda; }

  std::string description() const override {
    return fmt::format("{}, sm_{}{}, {}", properties_.name, properties_.major, properties_.minor,
                       format_bytes(static_cast<std::int64_t>(properties_.totalGlobalMem)));
  }

  bool has_own_memory() const override { return true; }

  std::int64_t free_bytes() const override {
    use_device(ordinal_);
    std::size_t free = 0;
    std::size_t total = 0;
    CUDA_CHECK(cudaMemGetInfo(&free, &total));
    return static_cast<std::int64_t>(free);
  }

  DeviceMemory allocate(std::int64_t bytes) override {
    if (bytes == 0) return {};
    use_device(ordinal_);
    // CUDA promises an alignment to 256 only. What is large is aligned in fact, and gets not a byte more.
    std::unique_ptr<GpuMemory> memory = allocate_raw(bytes, bytes);
    std::int64_t offset = memory->bytes_to_alignment();
    if (offset > 0) {
      memory.reset();
      memory = allocate_raw(bytes + kPageAlign, bytes);
      offset = memory->bytes_to_alignment();
    }
    std::byte* const data = memory->data() + offset;
    return {std::move(memory), {data, static_cast<std::size_t>(bytes)}};
  }

  std::unique_ptr<DeviceResource> pin(std::span<std::byte> host) override {
    if (host.empty()) return nullptr;
    use_device(ordinal_);
    const cudaError_t error = cudaHostRegister(host.data(), host.size(), cudaHostRegisterDefault);
    if (error == cudaSuccess) return std::make_unique<Registration>(host.data(), ordinal_);
    (void)cudaGetLastError();
    log_warn(
        "cpu memory: {} could not be pinned ({}); going on, transfers to the GPU will be several times "
        "slower; "
        "raise the limit of locked memory (ulimit -l), or lower --cpu-memory",
        format_bytes(static_cast<std::int64_t>(host.size())), cudaGetErrorString(error));
    return nullptr;
  }

  std::unique_ptr<Stream> make_stream(StreamPriority priority, std::span<std::byte> workspace) override {
    use_device(ordinal_);
    if (blas_ == nullptr) prepare_streams();
    const CudaStream::Origin origin{origin_.get(), origin_sec_};
    if (priority == StreamPriority::kUrgent && workspace.empty())
      return std::make_unique<UrgentStream>(origin, blas_.get());
    return std::make_unique<CudaStream>(priority, origin, blas_.get(), workspace);
  }

 private:
  /// What all streams share. Not before the first one, so that a refusal comes when the run has been planned.
  void prepare_streams() {
    cudaEvent_t origin = nullptr;
    CUDA_CHECK(cudaEventCreate(&origin));
    origin_.reset(origin);
    CUDA_CHECK(cudaEventRecord(origin, nullptr));
    CUDA_CHECK(cudaEventSynchronize(origin));
    origin_sec_ = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    cublasLtHandle_t blas = nullptr;
    CUBLAS_CHECK(cublasLtCreate(&blas));
    blas_.reset(blas);
  }

  /// `bytes` for somebody who asked for `wanted`.
  std::unique_ptr<GpuMemory> allocate_raw(std::int64_t bytes, std::int64_t wanted) const {
    void* memory = nullptr;
    const cudaError_t error = cudaMalloc(&memory, static_cast<std::size_t>(bytes));
    if (error == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();  // it was reported here; later calls must not find it
      throw Error(
          Code::kOutOfMemory,
          fmt::format("gpu memory: need {}, but {} of {} are free on {}", format_bytes(wanted),
                      format_bytes(free_bytes()),
                      format_bytes(static_cast<std::int64_t>(properties_.totalGlobalMem)), properties_.name),
          "lower --gpu-memory, or end the other programs on this GPU");
    }
    CUDA_CHECK(error);
    return std::make_unique<GpuMemory>(memory, ordinal_);
  }

  const int ordinal_;
  cudaDeviceProp properties_{};
  UniqueEvent origin_;
  double origin_sec_ = 0;
  UniqueCublasLt blas_;
};

/// The number of devices, or why none can be used.
int count_devices(std::string& why_none) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return count;
  (void)cudaGetLastError();
  int driver = 0;
  int runtime = 0;
  (void)cudaDriverGetVersion(&driver);
  (void)cudaRuntimeGetVersion(&runtime);
  const auto version = [](int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); };
  if (driver == 0) {
    why_none = "no driver";
  } else if (error == cudaErrorInsufficientDriver) {
    why_none =
        fmt::format("the driver serves CUDA {}, this build needs {}", version(driver), version(runtime));
  } else {
    why_none = error == cudaSuccess ? "the driver finds none" : cudaGetErrorString(error);
  }
  return 0;
}

}  // namespace

namespace detail {

bool cuda_device_present() {
  std::string why_none;
  if (count_devices(why_none) == 0) return false;
  int major = 0;
  int minor = 0;
  return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0) == cudaSuccess &&
         is_new_enough(major, minor);
}

std::string cuda_devices_text() {
  std::string why_none;
  const int count = count_devices(why_none);
  if (count == 0) return fmt::format("cuda: none ({})", why_none);
  std::string text;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties{};
    CUDA_CHECK(cudaGetDeviceProperties(&properties, i));
    text +=
        fmt::format("{}cuda:{}: {}, sm_{}{}, {}{}", i > 0 ? "; " : "", i, properties.name, properties.major,
                    properties.minor, format_bytes(static_cast<std::int64_t>(properties.totalGlobalMem)),
                    is_new_enough(properties.major, properties.minor) ? "" : " (too old)");
  }
  return text;
}

std::unique_ptr<Device> make_cuda_device(int ordinal) {
  std::string why_none;
  const int count = count_devices(why_none);
  SLUICE_CHECK(count > 0, Code::kDevice, fmt::format("no CUDA device: {}", why_none),
               "install or update the NVIDIA driver, or use --device cpu");
  SLUICE_CHECK(ordinal >= 0 && ordinal < count, Code::kInvalidArgument,
               fmt::format("there is no CUDA device {}; this machine has {}", ordinal, count),
               "give --device cuda:N with a smaller N");
  return std::make_unique<CudaDevice>(ordinal);
}

}  // namespace detail
}  // namespace sluice::kernels
