// The device side of libsluice_spmm, behind its C interface (include/sluice/spmm.h). Used by one thread at a
// time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "kernels/ops/linear.h"

namespace sluice::kernels {

class SpmmContext {
 public:
  virtual ~SpmmContext() = default;
  struct Problem {
    WeightFormat format;
    std::int64_t rows = 0, cols = 0;
    std::size_t weight_bytes = 0;
    std::int64_t tokens = 0;
  };
  virtual std::int64_t workspace_bytes(const Problem& problem) const = 0;
  virtual const char* kernel_name(const Problem& problem) const = 0;
  /// Throws Error{kUnsupported, kInvalidArgument, kDevice}.
  virtual void run(const LinearArgs& args, std::span<std::byte> workspace) = 0;
};

/// `stream` is a cudaStream_t of the device. Throws Error{kUnsupported} in a build without CUDA, {kDevice}
/// without a device, {kInvalidArgument} for a number that it does not have.
std::unique_ptr<SpmmContext> make_spmm_context(int device, void* stream);

namespace detail {  // kernels/spmm/cuda; CUDA builds only
std::unique_ptr<SpmmContext> make_spmm_context_cuda(int device, void* stream);
}  // namespace detail

}  // namespace sluice::kernels
