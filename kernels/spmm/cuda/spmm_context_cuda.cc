// Products of libsluice_spmm on a CUDA device.
#include <algorithm>

#include "core/error.h"
#include "core/log.h"
#include "core/units.h"
#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/format/cuda/fused_cuda.h"
#include "kernels/ops/cuda_kernels.h"
#include "kernels/ops/expand.h"
#include "kernels/ops/linear_paths_cuda.h"
#include "kernels/spmm/spmm_context.h"

namespace sluice::kernels {
namespace {

constexpr const char* kExpandName = "expand+cublaslt";

/// Makes a device the calling thread's current one for a while.
class OnDevice {
 public:
  explicit OnDevice(int ordinal) : ordinal_(ordinal) {
    CUDA_CHECK(cudaGetDevice(&before_));
    if (before_ != ordinal_) CUDA_CHECK(cudaSetDevice(ordinal_));
  }
  ~OnDevice() {
    if (before_ == ordinal_) return;
    if (const cudaError_t error = cudaSetDevice(before_); error != cudaSuccess)
      log_cuda_failure(error, "cudaSetDevice");
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int ordinal_, before_ = 0;
};

class SpmmContextCuda final : public SpmmContext {
 public:
  SpmmContextCuda(int device, cudaStream_t stream) : ordinal_(device) {
    make_cuda_device(device);  // throws for what cannot be used
    const OnDevice current(ordinal_);
    cublasLtHandle_t blas = nullptr;
    CUBLAS_CHECK(cublasLtCreate(&blas));
    blas_.reset(blas);
    stream_ = std::make_unique<CudaStream>(stream, blas);
  }
  ~SpmmContextCuda() override {
    // The stream is waited for, and what belongs to it released, on its own device.
    try {
      const OnDevice current(ordinal_);
      stream_.reset();
      blas_.reset();
    } catch (const Error& error) {
      log_warn("libsluice_spmm: {}", error.what());
    }
  }

  std::int64_t workspace_bytes(const Problem& problem) const override {
    const LinearArgs args = typical(problem);
    return needed_bytes(args, choose(args));
  }

  const char* kernel_name(const Problem& problem) const override {
    const FusedKernel* const kernel = choose(typical(problem));
    return kernel == nullptr ? kExpandName : kernel->name.data();
  }

  void run(const LinearArgs& args, std::span<std::byte> workspace) override {
    const OnDevice current(ordinal_);
    const FusedKernel* const kernel = choose(args);
    const std::int64_t needed = needed_bytes(args, kernel);
    SLUICE_CHECK(std::ssize(workspace) >= needed && (workspace.data() != nullptr || needed == 0),
                 Code::kInvalidArgument,
                 fmt::format("the workspace has {}, {} needs {}", format_bytes(std::ssize(workspace)),
                             kernel == nullptr ? kExpandName : kernel->name, format_bytes(needed)),
                 "give the bytes of sluice_spmm_workspace_bytes, and rows at multiples of 16 bytes");
    if (kernel != nullptr) {
      stream_->set_workspace(workspace);
      detail::linear_encoded_cuda(args, *stream_);
      return;
    }
    const auto blas_bytes = static_cast<std::size_t>(kernels::workspace_bytes(DeviceKind::kCuda));
    stream_->set_workspace(workspace.first(blas_bytes));
    LinearArgs expanded = args;
    expanded.scratch = workspace.subspan(blas_bytes);
    detail::linear_expanded_cuda(expanded, *stream_);
  }

 private:
  static std::int64_t needed_bytes(const LinearArgs& args, const FusedKernel* kernel) {
    const WeightView& weight = args.weight;
    if (kernel != nullptr)
      return kernel->workspace_bytes(weight.format, weight.rows, weight.cols,
                                     std::min(args.y.rows, kernel->max_rows));
    return kernels::workspace_bytes(DeviceKind::kCuda) +
           expansion_bytes(weight.format, weight.rows, weight.cols, DeviceKind::kCuda);
  }
  /// A product over operands that are aligned well, which nobody is going to read.
  static LinearArgs typical(const Problem& p) {
    auto* const somewhere = reinterpret_cast<std::byte*>(kPageAlign);
    return {.x = {somewhere, p.format.dtype, p.tokens, p.cols, p.cols},
            .weight = {p.format, {somewhere, p.weight_bytes}, p.rows, p.cols},
            .y = {somewhere, p.format.dtype, p.tokens, p.rows, p.rows}};
  }
  /// As `linear` chooses, for a workspace of the engine's size.
  const FusedKernel* choose(const LinearArgs& args) const {
    return stream_->linear_paths().kernel_for(args, kernels::workspace_bytes(DeviceKind::kCuda));
  }

  const int ordinal_;
  UniqueCublasLt blas_;
  std::unique_ptr<CudaStream> stream_;
};

}  // namespace

namespace detail {

std::unique_ptr<SpmmContext> make_spmm_context_cuda(int device, void* stream) {
  return std::make_unique<SpmmContextCuda>(device, static_cast<cudaStream_t>(stream));
}

}  // namespace detail
}  // namespace sluice::kernels
