#include <atomic>

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include "tests/fakes/cuda/cuda_faults.h"

namespace sluice::kernels::fakes {
namespace {

struct Counter {
  std::atomic<std::int64_t> calls{0}, refused{0};
};
std::array<Counter, kCudaCalls.size()> counters;

Counter& counter_of(CudaCall call) { return counters[static_cast<std::size_t>(call)]; }

bool is_refused(CudaCall call) {
  Counter& counter = counter_of(call);
  const std::int64_t number = counter.calls.fetch_add(1) + 1;
  return number == counter.refused.load();
}

__global__ void write_nowhere(int* where) { *where = 1; }

}  // namespace

const char* cuda_call_name(CudaCall call) {
  constexpr std::array<const char*, kCudaCalls.size()> kNames = {"cudaMalloc",       "cudaHostAlloc",
                                                                 "cudaHostRegister", "cudaStreamCreate",
                                                                 "cudaEventCreate",  "cublasLtCreate"};
  return kNames[static_cast<std::size_t>(call)];
}

void refuse_cuda_call(CudaCall call, std::int64_t nth) {
  for (Counter& counter : counters) {
    counter.refused.store(0);
    counter.calls.store(0);
  }
  counter_of(call).refused.store(nth);
}

std::int64_t num_cuda_calls(CudaCall call) { return counter_of(call).calls.load(); }

void launch_illegal_access() {
  write_nowhere<<<1, 1>>>(reinterpret_cast<int*>(std::uintptr_t{64}));
  // Whoever looks next sees the failure; the launch itself succeeds.
}

int num_cuda_devices() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

bool is_cuda_device_started(int ordinal) {
  // The driver is asked directly: a call of the runtime might start the device.
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW);
  if (driver == nullptr) return false;
  using GetState = int (*)(int device, unsigned* flags, int* active);
  const auto get_state = reinterpret_cast<GetState>(dlsym(driver, "cuDevicePrimaryCtxGetState"));
  unsigned flags = 0;
  int active = 0;
  const bool known = get_state != nullptr && get_state(ordinal, &flags, &active) == 0;
  dlclose(driver);
  return known && active != 0;
}

}  // namespace sluice::kernels::fakes

// What the linker puts in place of the calls.

using sluice::kernels::fakes::CudaCall;
using sluice::kernels::fakes::is_refused;

extern "C" {

cudaError_t __real_cudaMalloc(void** memory, std::size_t bytes);
cudaError_t __wrap_cudaMalloc(void** memory, std::size_t bytes) {
  return is_refused(CudaCall::kMalloc) ? cudaErrorMemoryAllocation : __real_cudaMalloc(memory, bytes);
}

cudaError_t __real_cudaHostAlloc(void** memory, std::size_t bytes, unsigned flags);
cudaError_t __wrap_cudaHostAlloc(void** memory, std::size_t bytes, unsigned flags) {
  return is_refused(CudaCall::kHostAlloc) ? cudaErrorMemoryAllocation
                                          : __real_cudaHostAlloc(memory, bytes, flags);
}

cudaError_t __real_cudaHostRegister(void* memory, std::size_t bytes, unsigned flags);
cudaError_t __wrap_cudaHostRegister(void* memory, std::size_t bytes, unsigned flags) {
  return is_refused(CudaCall::kHostRegister) ? cudaErrorMemoryAllocation
                                             : __real_cudaHostRegister(memory, bytes, flags);
}

cudaError_t __real_cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority);
cudaError_t __wrap_cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  return is_refused(CudaCall::kStreamCreate) ? cudaErrorMemoryAllocation
                                             : __real_cudaStreamCreateWithPriority(stream, flags, priority);
}

cudaError_t __real_cudaEventCreate(cudaEvent_t* event);
cudaError_t __wrap_cudaEventCreate(cudaEvent_t* event) {
  return is_refused(CudaCall::kEventCreate) ? cudaErrorMemoryAllocation : __real_cudaEventCreate(event);
}

cudaError_t __real_cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t __wrap_cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return is_refused(CudaCall::kEventCreate) ? cudaErrorMemoryAllocation
                                            : __real_cudaEventCreateWithFlags(event, flags);
}

cublasStatus_t __real_cublasLtCreate(cublasLtHandle_t* handle);
cublasStatus_t __wrap_cublasLtCreate(cublasLtHandle_t* handle) {
  return is_refused(CudaCall::kBlasCreate) ? CUBLAS_STATUS_ALLOC_FAILED : __real_cublasLtCreate(handle);
}

}  // extern "C"
