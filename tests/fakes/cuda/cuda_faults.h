// Faults of a CUDA device, made to happen: calls that are refused, a kernel that breaks the device, one that
// was built for another architecture; and whether a device has been started. Calls are caught by the linker
// (--wrap), so whatever links this library can have them refused. Thread-safe.
#pragma once

#include <array>
#include <cstdint>

namespace sluice::kernels::fakes {

/// The calls that take something from the system at start.
enum class CudaCall : std::uint8_t {
  kMalloc,
  kHostAlloc,
  kHostRegister,
  kStreamCreate,
  kEventCreate,
  kBlasCreate
};
inline constexpr std::array kCudaCalls = {CudaCall::kMalloc,       CudaCall::kHostAlloc,
                                          CudaCall::kHostRegister, CudaCall::kStreamCreate,
                                          CudaCall::kEventCreate,  CudaCall::kBlasCreate};
const char* cuda_call_name(CudaCall call);

/// From now on counts calls anew and refuses, for want of memory, the `nth` of `call`, counted from 1; 0
/// refuses none.
void refuse_cuda_call(CudaCall call, std::int64_t nth);
/// How often it was called since then.
std::int64_t num_cuda_calls(CudaCall call);

/// Breaks the calling thread's current device for this process: a kernel writes where nothing is.
void launch_illegal_access();

/// A kernel that was built for an architecture of which no device is supported.
const void* foreign_kernel_address();

int num_cuda_devices();
/// Whether this process has started the device: it then holds some hundred MB of its memory.
bool is_cuda_device_started(int ordinal);

}  // namespace sluice::kernels::fakes
