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

/// At its end the calling thread's current device is what it was before. Where nothing differs, no device is
/// set: that would start one that the caller may not use.
class CallersDevice {
 public:
  CallersDevice() : before_(current()) {}
  ~CallersDevice() {
    if (before_ == kNone || before_ == current()) return;
    if (const cudaError_t error = cudaSetDevice(before_); error != cudaSuccess)
      log_cuda_failure(error, "cudaSetDevice");
  }
  CallersDevice(const CallersDevice&) = delete;
  CallersDevice& operator=(const CallersDevice&) = delete;

  int before() const { return before_; }

 private:
  static constexpr int kNone = -1;
  static int current() {
    int device = kNone;
    if (cudaGetDevice(&device) == cudaSuccess) return device;
    (void)cudaGetLastError();
    return kNone;
  }
  const int before_;
};

/// Makes a device the calling thread's current one for a while.
class OnDevice {
 public:
  explicit OnDevice(int ordinal) {
    if (callers_.before() != ordinal) CUDA_CHECK(cudaSetDevice(ordinal));
  }

 private:
  const CallersDevice callers_;
};

class SpmmContextCuda final : public SpmmContext {
 public:
  /// Leaves `device` current.
  SpmmContextCuda(int device, cudaStream_t stream) : ordinal_(device) {
    const std::unique_ptr<Device> cuda = make_cuda_device(device);  // throws for what cannot be used
    CUDA_CHECK(cudaSetDevice(ordinal_));
    counters_ = cuda->allocate(kCounterBytes);
    const std::unique_ptr<Stream> own = cuda->make_stream(StreamPriority::kBulk, {});
    own->fill(counters_.bytes, std::byte{0});
    own->synchronize();
    cublasLtHandle_t blas = nullptr;
    CUBLAS_CHECK(cublasLtCreate(&blas));
    blas_.reset(blas);
    stream_ = std::make_unique<CudaStream>(stream, blas, counters_.bytes);
  }
  ~SpmmContextCuda() override {
    // The stream is waited for, and what belongs to it released, on its own device.
    try {
      const OnDevice current(ordinal_);
      stream_.reset();
      blas_.reset();
      counters_ = {};
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
    stream_->set_workspace(workspace.first(kScratchBytes));
    LinearArgs expanded = args;
    expanded.scratch = workspace.subspan(kScratchBytes);
    detail::linear_expanded_cuda(expanded, *stream_);
  }

 private:
  static std::int64_t needed_bytes(const LinearArgs& args, const FusedKernel* kernel) {
    const WeightView& weight = args.weight;
    if (kernel != nullptr)
      return kernel
          ->memory_bytes(weight.format, weight.rows, weight.cols, std::min(args.y.rows, kernel->max_rows))
          .scratch;
    return kScratchBytes + expansion_bytes(weight.format, weight.rows, weight.cols, DeviceKind::kCuda);
  }
  /// A product over operands that are aligned well, which nobody is going to read.
  static LinearArgs typical(const Problem& p) {
    auto* const somewhere = reinterpret_cast<std::byte*>(kPageAlign);
    return {.x = {somewhere, p.format.dtype, p.tokens, p.cols, p.cols},
            .weight = {p.format, {somewhere, p.weight_bytes}, p.rows, p.cols},
            .y = {somewhere, p.format.dtype, p.tokens, p.rows, p.rows}};
  }
  /// As `linear` chooses, for scratch of the engine's size.
  const FusedKernel* choose(const LinearArgs& args) const {
    return stream_->linear_paths().kernel_for(args, {.counters = kCounterBytes, .scratch = kScratchBytes});
  }

  const int ordinal_;
  DeviceMemory counters_;
  UniqueCublasLt blas_;
  std::unique_ptr<CudaStream> stream_;
};

}  // namespace

namespace detail {

std::unique_ptr<SpmmContext> make_spmm_context_cuda(int device, void* stream) {
  const CallersDevice callers;  // also of what a failing constructor releases
  return std::make_unique<SpmmContextCuda>(device, static_cast<cudaStream_t>(stream));
}

}  // namespace detail
}  // namespace sluice::kernels
