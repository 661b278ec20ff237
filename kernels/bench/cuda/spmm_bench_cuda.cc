// SpmmBench on a CUDA device.
#include <algorithm>
#include <limits>
#include <optional>

#include "core/error.h"
#include "core/units.h"
#include "kernels/bench/bench_matrix.h"
#include "kernels/bench/cuda/cold_timer.h"
#include "kernels/bench/cuda/cusparse_product.h"
#include "kernels/bench/cuda/dense_products.h"
#include "kernels/bench/cuda/device_rates.h"
#include "kernels/bench/cuda/judge.h"
#include "kernels/bench/spmm_bench.h"
#include "kernels/device/cpu/thread_pool.h"
#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/format/cuda/fused_cuda.h"
#include "kernels/format/encode_parallel.h"
#include "kernels/ops/cuda_kernels.h"
#include "kernels/ops/expand.h"
#include "kernels/ops/linear.h"

namespace sluice::kernels {
namespace {

constexpr std::int64_t kGuardBytes = 4096;
constexpr std::uint8_t kPoison = 0xFF;  // NaN as fp16
constexpr std::int64_t kBlasWorkspaceBytes = 64_MiB;
/// Device time that one measurement may take.
constexpr double kBudgetSec = 20e-3;

constexpr const char* kExpandProduct = "expand+cublaslt";
constexpr const char* kLinear = "linear";

template <class Library>
std::unique_ptr<Library> open(std::string& why_not, const auto&... arguments) {
  try {
    return std::make_unique<Library>(arguments...);
  } catch (const Error& error) {
    why_not = error.what();
    return nullptr;
  }
}

class SpmmBenchCuda final : public SpmmBench {
 public:
  SpmmBenchCuda(Device& device, ThreadPool& pool, const Options& options)
      : device_(device),
        pool_(pool),
        options_(options),
        workspace_(device.allocate(workspace_bytes(DeviceKind::kCuda))),
        stream_(device.make_stream(StreamPriority::kBulk, workspace_.bytes)),
        blas_workspace_(device.allocate(kBlasWorkspaceBytes)),
        judgement_(device.allocate(sizeof(Judgement))) {
    stream_->bind_thread();
    timer_.emplace();
    int ordinal = 0;
    int major = 0;
    int minor = 0;
    CUDA_CHECK(cudaGetDevice(&ordinal));
    CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal));
    CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal));
    compute_capability_ = 10 * major + minor;
    std::byte* const blas_memory = blas_workspace_.bytes.data();
    cublas_ = open<Cublas>(why_no_cublas_, raw(), blas_memory, kBlasWorkspaceBytes);
    cublaslt_ = std::make_unique<CublasLt>(raw(), blas_memory, kBlasWorkspaceBytes);
    cusparse_ = open<Cusparse>(why_no_cusparse_, raw());
  }

  std::string libraries() const override {
    return fmt::format("cuBLAS {}, cuSPARSE {}",
                       cublas_ ? cublas_->version() : "not measured (" + why_no_cublas_ + ")",
                       cusparse_ ? cusparse_->version() : "not measured (" + why_no_cusparse_ + ")");
  }

  SpmmDeviceRates measure_rates() override { return measure_device_rates(device_, *stream_, *timer_); }
  void set_matrix(SpmmShape shape, double sparsity) override;
  void set_encoding(Encoding encoding) override;
  void set_csr() override;
  std::int64_t stored_bytes() const override { return stored_bytes_; }
  std::vector<std::string> products() const override;
  SpmmTiming time_product(const std::string& name, std::int64_t rows) override;
  SpmmTiming time_expansion(Expansion expansion) override;

 private:
  using Call = std::function<void(int copy)>;

  cudaStream_t raw() { return as_cuda(*stream_).raw(); }
  DeviceMemory upload(std::span<const std::byte> bytes) {
    DeviceMemory memory = device_.allocate(std::max<std::int64_t>(16, std::ssize(bytes)));
    stream_->copy(memory.bytes.data(), bytes.data(), std::ssize(bytes));
    stream_->synchronize();
    return memory;
  }
  /// The form's bytes, as many times as make the L2 cold.
  void set_copies(std::span<const std::byte> bytes);
  /// What products and expansions are judged by from here on.
  void set_expected(std::optional<Encoding> lossy, std::span<const std::uint16_t> values);
  void require_reference();

  WeightView weight(int copy) const {
    return {{encoding_, DType::kF16},
            std::span<const std::byte>(copies_[static_cast<std::size_t>(copy)].bytes)
                .first(static_cast<std::size_t>(stored_bytes_)),
            shape_.rows,
            shape_.cols};
  }
  std::byte* y() const { return y_.bytes.data() + kGuardBytes; }
  LinearArgs linear_args(int copy, std::int64_t rows) const {
    return {.x = {x_.bytes.data(), DType::kF16, rows, shape_.cols, shape_.cols},
            .weight = weight(copy),
            .y = {y(), DType::kF16, rows, shape_.rows, shape_.rows}};
  }
  DenseOperands dense_operands(int copy, std::int64_t rows) const {
    return {x_.bytes.data(), copies_[static_cast<std::size_t>(copy)].bytes.data(), y(), rows, shape_.rows,
            shape_.cols};
  }
  /// Empty, and says why, if the product cannot run.
  Call make_call(const std::string& name, std::int64_t rows, std::string& why_not);
  Call fused_call(const FusedKernel& kernel, std::int64_t rows, std::string& why_not);
  /// Expansion, or what `linear` chooses.
  Call linear_call(std::int64_t rows, bool expands, std::string& why_not);
  void expand_rows(int copy, std::int64_t first, std::int64_t count, const DeviceMemory& to) {
    expand({.weight = weight(copy),
            .first_row = first,
            .num_rows = count,
            .out = to.bytes.first(static_cast<std::size_t>(count * shape_.cols * 2))},
           *stream_);
  }
  Judgement judged(const std::function<void(Judgement* found)>& judge);
  double worst_of_product(std::int64_t rows);
  void finish(const ColdSamples& samples, SpmmTiming& timing) const {
    timing.sec = samples.median_sec;
    timing.low_sec = samples.low_sec;
    timing.high_sec = samples.high_sec;
  }

  // fixed after construction
  Device& device_;
  ThreadPool& pool_;
  const Options options_;
  DeviceMemory workspace_;
  std::unique_ptr<Stream> stream_;
  DeviceMemory blas_workspace_, judgement_;
  std::optional<ColdTimer> timer_;
  int compute_capability_ = 0;
  std::unique_ptr<Cublas> cublas_;
  std::unique_ptr<CublasLt> cublaslt_;
  std::unique_ptr<Cusparse> cusparse_;
  std::string why_no_cublas_, why_no_cusparse_;

  // of the matrix
  SpmmShape shape_;
  std::vector<std::uint16_t> values_;
  std::vector<std::byte> stored_;  // these two: kept, because fresh pages take as long as encoding
  std::vector<std::uint16_t> decoded_;
  DeviceMemory x_, y_, reference_, squares_;
  DeviceMemory expected_;  // dense
  std::optional<Encoding> expected_of_;
  bool has_expected_ = false, has_reference_ = false;

  // of its form
  Encoding encoding_ = Encoding::kDense;
  bool is_csr_ = false;
  std::vector<DeviceMemory> copies_;
  std::int64_t stored_bytes_ = 0;
  std::vector<DeviceMemory> csr_tables_;  // row starts and columns of each copy, whose values are copies_
  std::int64_t csr_nonzeros_ = 0;
  // of the product or expansion measured last
  DeviceMemory counters_, scratch_, transposed_;
  std::function<void()> after_calls_;  // brings y into place, for a product that cannot write it there
};

void SpmmBenchCuda::set_matrix(SpmmShape shape, double sparsity) {
  copies_.clear();
  csr_tables_.clear();
  for (DeviceMemory* memory : {&expected_, &counters_, &scratch_}) *memory = {};
  has_expected_ = false;
  if (!(shape == shape_)) {
    for (DeviceMemory* memory : {&x_, &y_, &reference_, &squares_}) *memory = {};
    shape_ = shape;
    x_ = device_.allocate(options_.max_rows * shape.cols * 2);
    y_ = device_.allocate(2 * kGuardBytes + options_.max_rows * shape.rows * 2);
    reference_ = device_.allocate(options_.max_rows * shape.rows * 4);
    squares_ = device_.allocate(shape.rows * 4);
    fill_random_half(x_.bytes.data(), options_.max_rows * shape.cols, raw());
  }
  values_.resize(static_cast<std::size_t>(shape.rows * shape.cols));
  fill_bench_matrix(sparsity, pool_, values_);
  set_encoding(Encoding::kDense);
}

void SpmmBenchCuda::set_copies(std::span<const std::byte> bytes) {
  copies_.clear();
  csr_tables_.clear();
  counters_ = {};
  scratch_ = {};
  stored_bytes_ = std::ssize(bytes);
  copies_.push_back(upload(bytes));
  for (int i = cold_copies(stored_bytes_); i > 1; --i) {
    copies_.push_back(device_.allocate(std::max<std::int64_t>(16, stored_bytes_)));
    stream_->copy(copies_.back().bytes.data(), copies_.front().bytes.data(), stored_bytes_);
  }
  stream_->synchronize();
}

void SpmmBenchCuda::set_expected(std::optional<Encoding> lossy, std::span<const std::uint16_t> values) {
  if (has_expected_ && expected_of_ == lossy) return;
  expected_ = {};
  expected_ = upload(std::as_bytes(values));
  expected_of_ = lossy;
  has_expected_ = true;
  has_reference_ = false;
}

void SpmmBenchCuda::require_reference() {
  if (has_reference_) return;
  reference_product(
      x_.bytes.data(), expected_.bytes.data(), reinterpret_cast<float*>(reference_.bytes.data()),
      reinterpret_cast<float*>(squares_.bytes.data()), options_.max_rows, shape_.rows, shape_.cols, raw());
  has_reference_ = true;
}

void SpmmBenchCuda::set_encoding(Encoding encoding) {
  const TensorSpec tensor{"the bench's matrix", 0, shape_.rows, shape_.cols, false, SplitRule::kRows};
  const WeightFormat format{encoding, DType::kF16};
  encoding_ = encoding;
  is_csr_ = false;
  if (encoding == Encoding::kDense) {
    set_copies(std::as_bytes(std::span(values_)));
    set_expected({}, values_);
    return;
  }
  const EncodedMatrix encoded(tensor, format, DType::kF16, std::as_bytes(std::span(values_)), pool_);
  stored_.resize(static_cast<std::size_t>(encoded.bytes()));
  encoded.write(stored_, pool_);
  set_copies(stored_);
  if (is_lossless(encoding)) {
    set_expected({}, values_);
  } else {
    decoded_.resize(values_.size());
    expand_matrix({format, stored_, shape_.rows, shape_.cols}, decoded_, pool_);
    set_expected(encoding, decoded_);
  }
}

void SpmmBenchCuda::set_csr() {
  const CsrMatrix csr = to_csr(values_, shape_.rows, shape_.cols, pool_);
  is_csr_ = true;
  set_copies(std::as_bytes(std::span(csr.values)));
  stored_bytes_ = csr.bytes();
  csr_nonzeros_ = std::ssize(csr.values);
  copies_.resize(
      static_cast<std::size_t>(std::min<std::int64_t>(cold_copies(stored_bytes_), std::ssize(copies_))));
  for (std::size_t i = 0; i < copies_.size(); ++i) {
    csr_tables_.push_back(upload(std::as_bytes(std::span(csr.row_starts))));
    csr_tables_.push_back(upload(std::as_bytes(std::span(csr.columns))));
  }
  set_expected({}, values_);
}

std::vector<std::string> SpmmBenchCuda::products() const {
  if (is_csr_) return {"cusparse"};
  if (encoding_ == Encoding::kDense) return {"cublas", "cublaslt"};
  std::vector<std::string> names;
  for (const FusedKernel& kernel : fused_kernels()) {
    if (kernel.encoding == encoding_ && kernel.runs_on(compute_capability_)) names.emplace_back(kernel.name);
  }
  names.emplace_back(kExpandProduct);
  names.emplace_back(kLinear);
  return names;
}

SpmmBenchCuda::Call SpmmBenchCuda::fused_call(const FusedKernel& kernel, std::int64_t rows,
                                              std::string& why_not) {
  if (rows > kernel.max_rows) {
    why_not = fmt::format("{} takes up to {} rows", kernel.name, kernel.max_rows);
  } else if (!kernel.can_run(linear_args(0, rows))) {
    why_not = fmt::format("{} does not take {} x {}", kernel.name, shape_.rows, shape_.cols);
  }
  if (!why_not.empty()) return {};
  const FusedMemoryBytes needed =
      kernel.memory_bytes({encoding_, DType::kF16}, shape_.rows, shape_.cols, rows);
  counters_ = device_.allocate(std::max<std::int64_t>(256, needed.counters));
  CUDA_CHECK(cudaMemsetAsync(counters_.bytes.data(), 0, counters_.bytes.size(), raw()));
  scratch_ = device_.allocate(std::max<std::int64_t>(256, needed.scratch));
  CUDA_CHECK(cudaMemsetAsync(scratch_.bytes.data(), kPoison, scratch_.bytes.size(), raw()));
  return [this, &kernel, rows](int copy) {
    kernel.run(linear_args(copy, rows), {.counters = counters_.bytes, .scratch = scratch_.bytes}, raw());
  };
}

SpmmBenchCuda::Call SpmmBenchCuda::linear_call(std::int64_t rows, bool expands, std::string& why_not) {
  why_not = why_unsupported(ExpandArgs{.weight = weight(0)}, DeviceKind::kCuda);
  if (!why_not.empty()) return {};
  scratch_ = device_.allocate(
      expansion_bytes({encoding_, DType::kF16}, shape_.rows, shape_.cols, DeviceKind::kCuda));
  return [this, rows, expands](int copy) {
    LinearArgs args = linear_args(copy, rows);
    args.scratch = scratch_.bytes;
    if (expands) {
      detail::linear_expanded_cuda(args, *stream_);
    } else {
      linear(args, *stream_);
    }
  };
}

SpmmBenchCuda::Call SpmmBenchCuda::make_call(const std::string& name, std::int64_t rows,
                                             std::string& why_not) {
  if (name == "cublas") {
    why_not = why_no_cublas_;
    if (!cublas_) return {};
    return [this, rows](int copy) { cublas_->run(dense_operands(copy, rows)); };
  }
  if (name == "cublaslt") {
    cublaslt_->choose(*timer_, static_cast<int>(copies_.size()),
                      [&](int copy) { return dense_operands(copy, rows); });
    return [this, rows](int copy) { cublaslt_->run(dense_operands(copy, rows)); };
  }
  if (name == "cusparse") {
    why_not = why_no_cusparse_;
    if (!cusparse_) return {};
    const auto set = [this](int copy) {
      const auto i = static_cast<std::size_t>(copy);
      cusparse_->set_matrix({shape_.rows, shape_.cols, csr_nonzeros_, csr_tables_[2 * i].bytes.data(),
                             csr_tables_[2 * i + 1].bytes.data(), copies_[i].bytes.data()});
    };
    set(0);
    const std::int64_t x_bytes = align_up(rows * shape_.cols * 2, kGuardBytes);
    const std::int64_t y_bytes = align_up(rows * shape_.rows * 2, kGuardBytes);
    transposed_ = device_.allocate(x_bytes + y_bytes);
    std::byte* const x = transposed_.bytes.data();
    std::byte* const y_transposed = x + x_bytes;
    transpose(x_.bytes.data(), x, rows, shape_.cols, raw());
    CUDA_CHECK(cudaMemsetAsync(y_transposed, kPoison, static_cast<std::size_t>(y_bytes), raw()));
    scratch_ = device_.allocate(std::max<std::int64_t>(16, cusparse_->prepare(x, y_transposed, rows)));
    after_calls_ = [this, y_transposed, rows] { transpose(y_transposed, y(), shape_.rows, rows, raw()); };
    return [this, set](int copy) {
      set(copy);
      cusparse_->run(scratch_.bytes);
    };
  }
  if (name == kExpandProduct || name == kLinear) return linear_call(rows, name == kExpandProduct, why_not);
  for (const FusedKernel& kernel : fused_kernels()) {
    if (kernel.name == name && kernel.encoding == encoding_) return fused_call(kernel, rows, why_not);
  }
  why_not = fmt::format("there is no product {} for {}", name, encoding_name(encoding_));
  return {};
}

Judgement SpmmBenchCuda::judged(const std::function<void(Judgement* found)>& judge) {
  CUDA_CHECK(cudaMemsetAsync(judgement_.bytes.data(), 0, sizeof(Judgement), raw()));
  judge(reinterpret_cast<Judgement*>(judgement_.bytes.data()));
  Judgement found;
  stream_->copy(reinterpret_cast<std::byte*>(&found), judgement_.bytes.data(), sizeof(found));
  stream_->synchronize();
  return found;
}

double SpmmBenchCuda::worst_of_product(std::int64_t rows) {
  require_reference();
  if (after_calls_) after_calls_();
  const std::int64_t y_bytes = rows * shape_.rows * 2;
  const Judgement found = judged([&](Judgement* to) {
    judge_product(y(), reinterpret_cast<const float*>(reference_.bytes.data()),
                  reinterpret_cast<const float*>(squares_.bytes.data()), rows, shape_.rows, shape_.cols, to,
                  raw());
    judge_guard(y_.bytes.data(), kGuardBytes, kPoison, to, raw());
    judge_guard(y() + y_bytes, std::ssize(y_.bytes) - kGuardBytes - y_bytes, kPoison, to, raw());
  });
  if (found.not_finite > 0 || found.strayed > 0) return std::numeric_limits<double>::infinity();
  return found.worst;
}

SpmmTiming SpmmBenchCuda::time_product(const std::string& name, std::int64_t rows) {
  SLUICE_ASSERT(rows > 0 && rows <= options_.max_rows);
  SpmmTiming timing;
  after_calls_ = nullptr;
  const Call call = make_call(name, rows, timing.why_not);
  if (!call) return timing;
  // One call over poisoned memory, and what the last of all calls left.
  CUDA_CHECK(cudaMemsetAsync(y_.bytes.data(), kPoison, y_.bytes.size(), raw()));
  call(0);
  timing.worst_error = worst_of_product(rows);
  finish(timer_->time(raw(), static_cast<int>(copies_.size()), options_.samples, kBudgetSec, call), timing);
  timing.worst_error = std::max(timing.worst_error, worst_of_product(rows));
  return timing;
}

SpmmTiming SpmmBenchCuda::time_expansion(Expansion expansion) {
  SpmmTiming timing;
  timing.why_not = why_unsupported(ExpandArgs{.weight = weight(0)}, DeviceKind::kCuda);
  if (!timing.why_not.empty()) return timing;
  const std::int64_t slice_rows =
      expansion == Expansion::kWhole ? shape_.rows
                                     : expanded_slice_rows({encoding_, DType::kF16}, shape_.rows, shape_.cols,
                                                           expanded_slice_bytes(DeviceKind::kCuda));
  scratch_ = device_.allocate(slice_rows * shape_.cols * 2);
  CUDA_CHECK(cudaMemsetAsync(scratch_.bytes.data(), kPoison, scratch_.bytes.size(), raw()));
  std::int64_t last = 0;
  const Call call = [&](int copy) {
    for (std::int64_t first = 0; first < shape_.rows; first += slice_rows) {
      expand_rows(copy, first, std::min(slice_rows, shape_.rows - first), scratch_);
      last = first;
    }
  };
  finish(timer_->time(raw(), static_cast<int>(copies_.size()), options_.samples, kBudgetSec, call), timing);
  const std::int64_t row_bytes = shape_.cols * 2;
  const Judgement found = judged([&](Judgement* to) {
    judge_equal(scratch_.bytes.data(), expected_.bytes.data() + last * row_bytes,
                (shape_.rows - last) * shape_.cols, to, raw());
  });
  if (found.not_finite > 0) timing.worst_error = std::numeric_limits<double>::infinity();
  return timing;
}

}  // namespace

namespace detail {

std::unique_ptr<SpmmBench> make_spmm_bench_cuda(Device& device, ThreadPool& pool,
                                                const SpmmBench::Options& options) {
  return std::make_unique<SpmmBenchCuda>(device, pool, options);
}

}  // namespace detail
}  // namespace sluice::kernels
