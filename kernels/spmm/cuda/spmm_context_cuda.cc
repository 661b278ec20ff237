// Products of libsluice_spmm on a CUDA device.
#include <algorithm>

#include "core/error.h"
#include "core/units.h"
#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/format/fused_cuda.h"
#include "kernels/ops/cuda_kernels.h"
#include "kernels/ops/expand.h"
#include "kernels/spmm/spmm_context.h"

namespace sluice::kernels {
namespace {

constexpr std::int64_t kAlign = 256;
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
    int major = 0;
    int minor = 0;
    CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    compute_capability_ = 10 * major + minor;
    cublasLtHandle_t blas = nullptr;
    CUBLAS_CHECK(cublasLtCreate(&blas));
    blas_.reset(blas);
    stream_ = std::make_unique<CudaStream>(stream, blas);
  }
  ~SpmmContextCuda() override {
    // Its memory is released on its own device.
    if (cudaSetDevice(ordinal_) != cudaSuccess) (void)cudaGetLastError();
  }

  std::int64_t workspace_bytes(WeightFormat format, std::int64_t rows, std::int64_t cols,
                               std::int64_t tokens) const override {
    const FusedKernel* const kernel = choose(typical(format, rows, cols, tokens));
    if (kernel == nullptr) return expand_workspace_bytes(format, rows, cols);
    // Another operand's alignment may ask for expansion.
    return std::max(kernel->workspace_bytes(format, rows, cols, tokens),
                    expand_workspace_bytes(format, rows, cols));
  }

  const char* kernel_name(WeightFormat format, std::int64_t rows, std::int64_t cols,
                          std::int64_t tokens) const override {
    const FusedKernel* const kernel = choose(typical(format, rows, cols, tokens));
    return kernel == nullptr ? kExpandName : kernel->name.data();
  }

  void run(const LinearArgs& args, std::span<std::byte> workspace) override {
    const OnDevice current(ordinal_);
    const WeightView& weight = args.weight;
    const FusedKernel* const kernel = choose(args);
    const std::int64_t needed =
        kernel == nullptr ? expand_workspace_bytes(weight.format, weight.rows, weight.cols)
                          : kernel->workspace_bytes(weight.format, weight.rows, weight.cols, args.y.rows);
    SLUICE_CHECK(std::ssize(workspace) >= needed && (workspace.data() != nullptr || needed == 0),
                 Code::kInvalidArgument,
                 fmt::format("the workspace has {}, {} needs {}", format_bytes(std::ssize(workspace)),
                             kernel == nullptr ? kExpandName : kernel->name, format_bytes(needed)),
                 "give the bytes of sluice_spmm_workspace_bytes");
    if (kernel != nullptr) {
      kernel->run(args, workspace.first(static_cast<std::size_t>(needed)), stream_->raw());
      return;
    }
    LinearArgs expanded = args;
    const auto blas_bytes = static_cast<std::size_t>(kernels::workspace_bytes(DeviceKind::kCuda));
    stream_->set_workspace(workspace.first(blas_bytes));
    expanded.scratch = workspace.subspan(blas_bytes);
    detail::linear_expanded_cuda(expanded, *stream_);
  }

 private:
  static std::int64_t expand_workspace_bytes(WeightFormat format, std::int64_t rows, std::int64_t cols) {
    return kernels::workspace_bytes(DeviceKind::kCuda) +
           align_up(expansion_bytes(format, rows, cols, DeviceKind::kCuda), kAlign);
  }
  /// A product over operands that are aligned well, which nobody is going to read.
  static LinearArgs typical(WeightFormat format, std::int64_t rows, std::int64_t cols, std::int64_t tokens) {
    auto* const somewhere = reinterpret_cast<std::byte*>(kPageAlign);
    const auto bytes = static_cast<std::size_t>(weight_byte_range(format, rows, cols).max);
    return {.x = {somewhere, format.dtype, tokens, cols, cols},
            .weight = {format, {somewhere, bytes}, rows, cols},
            .y = {somewhere, format.dtype, tokens, rows, rows}};
  }
  /// The kernel for the product, null for expansion.
  const FusedKernel* choose(const LinearArgs& args) const {
    for (const FusedKernel& kernel : fused_kernels()) {
      if (kernel.encoding == args.weight.format.encoding &&
          compute_capability_ >= kernel.min_compute_capability &&
          compute_capability_ <= kernel.max_compute_capability && args.y.rows <= kernel.max_rows &&
          kernel.can_run(args))
        return &kernel;
    }
    return nullptr;
  }

  const int ordinal_;
  int compute_capability_ = 0;
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
