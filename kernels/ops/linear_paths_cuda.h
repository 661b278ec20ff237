// Which way a product over an encoded weight takes on a CUDA device: one of the fused kernels, or expansion
// ahead of the dense product. The choice is data measured on that device, never a guess; a device without
// data expands. Immutable, thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/format/cuda/fused_cuda.h"
#include "kernels/ops/linear.h"

namespace sluice::kernels {

/// A measured fact: on these products `kernel` was the fastest. The first row that covers a product counts.
struct LinearPath {
  std::string_view device;  ///< the device's name begins with it: "NVIDIA H200"
  Encoding encoding = Encoding::kDense;
  std::int64_t least_elements = 0;  ///< of the weight
  double most_bytes = 0;            ///< stored bytes per element of the weight, which tell its zeros
  std::int64_t most_rows = 0;       ///< of x
  std::string_view kernel;          ///< FusedKernel::name; empty: expansion
};
/// What was measured, by device (scripts/linear_paths.py makes it of the table of `sluice bench spmm`).
std::span<const LinearPath> measured_linear_paths();

class LinearPaths {
 public:
  /// For a device of this name and compute capability (10 * major + minor). What the spans refer to outlives
  /// the object.
  LinearPaths(std::string_view device, int compute_capability, std::span<const LinearPath> measured,
              std::span<const FusedKernel> kernels);

  /// The kernel for the product, which it takes in runs of at most max_rows rows of x, or null: expansion.
  /// `memory`: what there is.
  const FusedKernel* kernel_for(const LinearArgs& args, const FusedMemoryBytes& memory) const;

 private:
  struct Path {
    const LinearPath* measured;
    const FusedKernel* kernel;
  };
  std::vector<Path> paths_;  // of this device
};

}  // namespace sluice::kernels
