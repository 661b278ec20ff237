// Products on the CUDA device that read a weight in its stored form: the table of kernels. `linear` chooses
// among them and expansion; `bench spmm` measures them all. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include <cuda_runtime_api.h>

#include "core/format.h"
#include "kernels/ops/linear.h"

namespace sluice::kernels {

/// Device memory by which the thread blocks of a product add up sums of one another. Nobody else's while it
/// runs.
struct FusedMemoryBytes {
  std::int64_t counters = 0, scratch = 0;

  bool cover(const FusedMemoryBytes& needed) const {
    return needed.counters <= counters && needed.scratch <= scratch;
  }
};
struct FusedMemory {
  std::span<std::byte> counters;  ///< 4-byte aligned; zeros when the product starts, and again when it ends
  std::span<std::byte> scratch;   ///< 16-byte aligned, of any content

  FusedMemoryBytes bytes() const { return {std::ssize(counters), std::ssize(scratch)}; }
};

/// y = epilogue(x W^T + bias) + residual in one launch, by the contract of `linear`: x and y of the weight's
/// type (y also fp32 where there is no residual), sums in fp32 in an order that depends on the weight alone.
struct FusedKernel {
  std::string_view name;  ///< "tiled_csl_sm90": unique, what the bench and the table of choices write
  Encoding encoding = Encoding::kDense;
  int min_compute_capability = 80;   ///< 10 * major + minor
  int max_compute_capability = 999;  ///< 90 for code that only sm_90a runs
  std::int64_t max_rows = 0;         ///< most rows of x of one launch
  /// False for a shape, type or alignment that the kernel does not take. Host only.
  bool (*can_run)(const LinearArgs& args) = nullptr;
  /// What `run` needs for up to `rows` rows of x, at least.
  FusedMemoryBytes (*memory_bytes)(WeightFormat format, std::int64_t weight_rows, std::int64_t weight_cols,
                                   std::int64_t rows) = nullptr;
  /// Enqueues the product. `args` satisfy can_run and args.scratch is not used. Throws Error{kDevice} if the
  /// launch fails. The weight may be read while a kernel ahead in the stream still runs: copies and events
  /// order it, kernels must not write it.
  void (*run)(const LinearArgs& args, const FusedMemory& memory, cudaStream_t stream) = nullptr;

  /// On devices of this compute capability, 10 * major + minor.
  bool runs_on(int compute_capability) const {
    return min_compute_capability <= compute_capability && compute_capability <= max_compute_capability;
  }
};

/// All that this build has, the sparse ones first.
std::span<const FusedKernel> fused_kernels();

}  // namespace sluice::kernels
