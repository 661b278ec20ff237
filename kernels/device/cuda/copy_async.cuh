// Asynchronous copies into shared memory, of compute capability 8.0 and later. Shared memory is named by its
// 32-bit address. CUDA sources only.
#pragma once

#include <cstdint>

namespace sluice::kernels {

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// For what is read once: it leaves the L2 cache before all else.
__device__ __forceinline__ std::uint64_t evict_first_policy() {
  std::uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

/// What a copy brings into the L2 cache: its own bytes, or 128 of them.
enum class L2Fetch : std::uint8_t { kCopied, k128Bytes };

/// Starts a copy of 16 bytes; with `bytes` 0 instead of 16 it writes zeros and reads nothing.
template <L2Fetch kFetch = L2Fetch::kCopied>
__device__ __forceinline__ void copy_async(std::uint32_t to, const void* from, int bytes) {
  if constexpr (kFetch == L2Fetch::k128Bytes) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
  }
}
template <L2Fetch kFetch = L2Fetch::kCopied>
__device__ __forceinline__ void copy_async(std::uint32_t to, const void* from, int bytes,
                                           std::uint64_t policy) {
  if constexpr (kFetch == L2Fetch::k128Bytes) {
    asm volatile("cp.async.cg.shared.global.L2::cache_hint.L2::128B [%0], [%1], 16, %2, %3;" ::"r"(to),
                 "l"(from), "r"(bytes), "l"(policy)
                 : "memory");
  } else {
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(to), "l"(from),
                 "r"(bytes), "l"(policy)
                 : "memory");
  }
}

/// Ends a group of this thread's copies.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most kLeft of this thread's groups are not complete.
template <int kLeft>
__device__ __forceinline__ void await_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

}  // namespace sluice::kernels
