// A device: where the GPU tier's memory comes from, how the CPU tier is made fit for transfers, and the
// streams of its lanes. The CPU device is a real backend: its GPU tier is ordinary memory, its copies really
// copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "kernels/device/stream.h"

namespace sluice::kernels {

/// What a stream is for: bulk work, or small transfers that must not queue behind it.
enum class StreamPriority : std::uint8_t { kBulk, kUrgent };

/// Memory of the GPU tier, or a registration of host memory; given back on destruction.
class DeviceResource {
 public:
  virtual ~DeviceResource() = default;
};
struct DeviceMemory {
  std::unique_ptr<DeviceResource> owner;
  std::span<std::byte> bytes;
};

/// Every method, and the release of what it gave, makes the device the calling thread's current one; no other
/// device of the machine is touched. A thread that enqueues on a stream says so by Stream::bind_thread.
class Device {
 public:
  virtual ~Device() = default;

  virtual DeviceKind kind() const = 0;
  virtual std::string description() const = 0;  ///< "NVIDIA H100 80GB HBM3, sm_90, 79.2 GiB"

  /// Whether the GPU tier is the device's own memory. If not, whoever plans it maps host memory for it, and
  /// `free_bytes` and `allocate` are not to be called.
  virtual bool has_own_memory() const = 0;
  /// Bytes of its own memory that can be allocated now.
  virtual std::int64_t free_bytes() const = 0;
  /// One allocation of its own memory, which starts at a multiple of kPageAlign. Throws Error{kOutOfMemory}
  /// with both numbers.
  virtual DeviceMemory allocate(std::int64_t bytes) = 0;
  /// Registers host memory for fast transfers. Where the system refuses, says so and gives null: transfers
  /// work without, several times slower.
  virtual std::unique_ptr<DeviceResource> pin(std::span<std::byte> host) = 0;
  /// `workspace` is memory of the GPU tier for the operators of this stream, of workspace_bytes(kind());
  /// empty for a stream that only copies.
  virtual std::unique_ptr<Stream> make_stream(StreamPriority priority, std::span<std::byte> workspace) = 0;
};

/// What the operators of a stream need beside their operands: on CUDA scratch of one operator at a time,
/// which is what cuBLASLt recommends for Hopper and attention shares, and counters of products over encoded
/// weights (FusedKernel::memory_bytes), enough for weights of 4 million rows.
inline constexpr std::int64_t kCounterBytes = std::int64_t{1} << 20;
inline constexpr std::int64_t kScratchBytes = std::int64_t{63} << 20;
constexpr std::int64_t workspace_bytes(DeviceKind kind) {
  return kind == DeviceKind::kCuda ? kScratchBytes + kCounterBytes : 0;
}

/// The CPU device over `pool` (not owned).
std::unique_ptr<Device> make_cpu_device(ThreadPool& pool);

/// The CUDA devices of this machine, described, or why there is none: "cuda: none (no driver)".
std::string cuda_devices_text();
/// Whether the first of them can be used: there is one, and it is not too old.
bool cuda_device_present();
/// Bytes of a device's memory that can be allocated now. Throws as make_cuda_device does.
std::int64_t cuda_free_bytes(int ordinal);
/// Throws Error{kDevice, kUnsupported} with the remedy: no device, driver too old, architecture not built, or
/// a build without CUDA.
std::unique_ptr<Device> make_cuda_device(int ordinal);

namespace detail {  // kernels/device/cuda; CUDA builds only
std::string cuda_devices_text();
bool cuda_device_present();
std::unique_ptr<Device> make_cuda_device(int ordinal);
}  // namespace detail

}  // namespace sluice::kernels
