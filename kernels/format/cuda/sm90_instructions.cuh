// The instructions of sm_90a that the fused products are made of, beside those of
// device/cuda/tensor_core.cuh: barriers in shared memory, bulk and tensor copies, and the registers of a
// warpgroup. Thin wrappers; addresses of shared memory are 32-bit numbers. For *.cu files only, inside code
// that is compiled for sm_90a.
#pragma once

#include <cstdint>

#include <cuda.h>

#include "kernels/device/cuda/tensor_core.cuh"

namespace sluice::kernels::sm90 {

using SharedAddress = std::uint32_t;

// --- barriers ---

__device__ __forceinline__ void barrier_init(SharedAddress barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_arrive(SharedAddress barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/// Arrives, and has the barrier wait for `bytes` of copies too.
__device__ __forceinline__ void barrier_arrive_expect(SharedAddress barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
/// Returns when the phase of this parity is over.
__device__ __forceinline__ void barrier_wait(SharedAddress barrier, std::uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
/// Whether barrier_wait would return at once.
__device__ __forceinline__ bool barrier_is_past(SharedAddress barrier, std::uint32_t parity) {
  std::uint32_t is_past;
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
      "selp.u32 %0, 1, 0, done;\n"
      "}"
      : "=r"(is_past)
      : "r"(barrier), "r"(parity)
      : "memory");
  return is_past != 0;
}
/// What this thread wrote to shared memory is seen by copies and matrix products issued after a barrier.
__device__ __forceinline__ void fence_for_async_reads() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
template <int kThreads>
__device__ __forceinline__ void sync_threads(int barrier) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(kThreads) : "memory");
}

// --- copies ---

/// Multiples of 16, all three.
__device__ __forceinline__ void bulk_copy(SharedAddress to, const void* from, std::uint32_t bytes,
                                          SharedAddress barrier, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, "
      "[%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}
/// The map is at hand when the first copy asks for it.
__device__ __forceinline__ void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
__device__ __forceinline__ void tensor_copy(SharedAddress to, const CUtensorMap* map, int col, int row,
                                            SharedAddress barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(col), "r"(row)
      : "memory");
}
/// The same of a tensor of three dimensions, with a policy for the L2 cache.
__device__ __forceinline__ void tensor_copy(SharedAddress to, const CUtensorMap* map, int at0, int at1,
                                            int at2, SharedAddress barrier, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1, {%3, %4, %5}], [%2], %6;" ::"r"(to),
      "l"(map), "r"(barrier), "r"(at0), "r"(at1), "r"(at2), "l"(policy)
      : "memory");
}

// --- shared memory ---

/// The low half of `value`.
__device__ __forceinline__ void store_half_word(SharedAddress to, std::uint32_t value) {
  asm volatile("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %1;\nst.shared.b16 [%0], low;\n}" ::"r"(to),
               "r"(value)
               : "memory");
}

/// As the low half of the result.
__device__ __forceinline__ std::uint32_t load_half_word(SharedAddress from) {
  std::uint32_t value;
  asm volatile("{\n.reg .b16 half;\nld.shared.b16 half, [%1];\ncvt.u32.u16 %0, half;\n}"
               : "=r"(value)
               : "r"(from)
               : "memory");
  return value;
}

// --- registers ---

/// `value`, which is the same in all lanes, and the compiler knows it: what is made of it has a register for
/// the warp, as addresses of wgmma's operands must, and branches on it leave the warp whole. By whole warps.
template <class T>
__device__ __forceinline__ T as_uniform(T value) {
  return __shfl_sync(0xFFFFFFFFU, value, 0);
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace sluice::kernels::sm90
