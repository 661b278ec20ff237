// What the tests of fused products share: weights in their stored form on the device, runs, and the checks
// that every product must pass.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/format/cuda/fused_cuda.h"
#include "kernels/format/format.h"
#include "tests/kernels/cuda/device_operands.h"
#include "tests/kernels/weight_cases.h"

namespace sluice::kernels::testing {

enum class FusedResult : std::uint8_t { kSameType, kF32 };
enum class FusedBias : std::uint8_t { kNone, kSameType, kOtherType };

struct FusedCase {
  WeightCase weight;
  std::int64_t tokens = 1;
  FusedBias bias = FusedBias::kNone;
  Epilogue epilogue = Epilogue::kNone;
  bool residual = false;
  FusedResult result = FusedResult::kSameType;
  std::int64_t padding = 0;   // between rows of x, residual and y
  std::int64_t x_misses = 0;  // elements that x starts behind a multiple of 16 bytes
};

inline const FusedKernel& fused_kernel(std::string_view name) {
  const auto all = fused_kernels();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const FusedKernel& k) { return k.name == name; });
  EXPECT_TRUE(found != all.end()) << name;
  return found != all.end() ? *found : all.front();
}

/// What a kernel needs for a product beside its operands, with a guard behind each part.
class FusedMemoryUnderTest {
 public:
  FusedMemoryUnderTest(CudaDeviceUnderTest& cuda, const FusedKernel& kernel, const LinearArgs& args)
      : stream_(cuda.stream()),
        needed_(kernel.memory_bytes(args.weight.format, args.weight.rows, args.weight.cols, args.x.rows)),
        counters_(cuda.device().allocate(needed_.counters + kGuardBytes)),
        scratch_(cuda.device().allocate(needed_.scratch + kGuardBytes)) {
    stream_.fill(counters_.bytes, kGuard);
    stream_.fill(scratch_.bytes, kGuard);
    stream_.fill(memory().counters, std::byte{0});
  }
  FusedMemory memory() const {
    return {.counters = counters_.bytes.first(static_cast<std::size_t>(needed_.counters)),
            .scratch = scratch_.bytes.first(static_cast<std::size_t>(needed_.scratch))};
  }
  /// After a product: the counters are zero, and nothing behind either part was touched.
  void expect_as_promised() const {
    const auto bytes_of = [&](const DeviceMemory& memory) {
      std::vector<std::byte> bytes(memory.bytes.size());
      stream_.copy(bytes.data(), memory.bytes.data(), std::ssize(bytes));
      stream_.synchronize();
      return bytes;
    };
    const std::vector<std::byte> counters = bytes_of(counters_), scratch = bytes_of(scratch_);
    const auto end = counters.begin() + needed_.counters;
    EXPECT_EQ(std::count(counters.begin(), end, std::byte{0}), needed_.counters) << "counters that are zero";
    EXPECT_EQ(std::count(end, counters.end(), kGuard), kGuardBytes) << "behind the counters";
    EXPECT_EQ(std::count(scratch.begin() + needed_.scratch, scratch.end(), kGuard), kGuardBytes)
        << "behind the scratch";
  }

 private:
  static constexpr std::int64_t kGuardBytes = 64;
  static constexpr std::byte kGuard{0xFF};

  Stream& stream_;
  const FusedMemoryBytes needed_;
  const DeviceMemory counters_, scratch_;
};

inline void run_fused(CudaDeviceUnderTest& cuda, const FusedKernel& kernel, const LinearArgs& args) {
  ASSERT_TRUE(kernel.can_run(args));
  const FusedMemoryUnderTest memory(cuda, kernel, args);
  kernel.run(args, memory.memory(), as_cuda(cuda.stream()).raw());
  memory.expect_as_promised();
}

/// What was captured of a stream, ready to be launched.
class CapturedGraph {
 public:
  template <class Enqueue>
  CapturedGraph(cudaStream_t stream, const Enqueue& enqueue) : stream_(stream) {
    cudaGraph_t graph = nullptr;
    CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    enqueue();
    CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    CUDA_CHECK(cudaGraphInstantiate(&executable_, graph, 0));
    CUDA_CHECK(cudaGraphDestroy(graph));
  }
  ~CapturedGraph() { EXPECT_EQ(cudaGraphExecDestroy(executable_), cudaSuccess); }
  CapturedGraph(const CapturedGraph&) = delete;
  CapturedGraph& operator=(const CapturedGraph&) = delete;

  void launch() const { CUDA_CHECK(cudaGraphLaunch(executable_, stream_)); }

 private:
  const cudaStream_t stream_;
  cudaGraphExec_t executable_ = nullptr;
};

/// A launch in a graph gives what one outside gives, every time, and its memory is as promised. `args` has no
/// y yet, nor a residual.
inline void expect_same_bits_by_graph(CudaDeviceUnderTest& cuda, const FusedKernel& kernel, LinearArgs args) {
  const DType dtype = args.weight.format.dtype;
  DeviceMatrix once(cuda, dtype, args.x.rows, args.weight.rows);
  DeviceMatrix again(cuda, dtype, args.x.rows, args.weight.rows);
  args.y = once.view();
  run_fused(cuda, kernel, args);
  once.fetch();
  args.y = again.view();
  const FusedMemoryUnderTest memory(cuda, kernel, args);
  const cudaStream_t raw = as_cuda(cuda.stream()).raw();
  const CapturedGraph graph(raw, [&] { kernel.run(args, memory.memory(), raw); });
  for (int i = 0; i < 3; ++i) {
    cuda.stream().fill({again.view().data, static_cast<std::size_t>(args.x.rows * args.weight.rows * 2)},
                       std::byte{0x7E});
    graph.launch();
    again.fetch();
    again.expect_same_bits(once);
    memory.expect_as_promised();
  }
}

/// A product's operands on both sides, made from the case alone.
class FusedOperands {
 public:
  FusedOperands(CudaDeviceUnderTest& cuda, const FusedKernel& kernel, DType dtype, const FusedCase& c,
                std::optional<std::vector<std::uint16_t>> values = {})
      : cuda_(cuda),
        kernel_(kernel),
        case_(c),
        tensor_{"decoder.layers.0.fc1.weight", 1, c.weight.rows, c.weight.cols, false, SplitRule::kRows},
        format_{kernel.encoding, dtype},
        stored_(encode_matrix(tensor_, format_, values ? *values : make_weights(c.weight, dtype))),
        expanded_(static_cast<std::size_t>(c.weight.rows * c.weight.cols)),
        device_stored_(cuda.put(stored_)),
        x_(cuda, dtype, GuardedMatrix::random(c.tokens, c.weight.cols + c.x_misses, c.padding, random_)),
        residual_(cuda, dtype, GuardedMatrix::random(c.tokens, c.weight.rows, c.padding, random_)),
        bias_(bias_format(), 1, c.weight.rows, random_),
        device_bias_(cuda, bias_) {
    codec_of(kernel.encoding)
        .expand({format_, stored_, c.weight.rows, c.weight.cols}, 0, c.weight.rows, expanded_);
  }

  DeviceMatrix result() {
    return {cuda_, case_.result == FusedResult::kF32 ? DType::kF32 : format_.dtype, case_.tokens,
            case_.weight.rows, case_.padding};
  }
  /// Of `rows` rows from `first` on.
  void run(DeviceMatrix& y, std::int64_t first, std::int64_t rows) {
    LinearArgs args = device_args();
    args.y = y.view().slice_rows(first, rows);
    args.x = args.x.slice_rows(first, rows);
    if (case_.residual) args.residual = args.residual.slice_rows(first, rows);
    run(args);
  }
  /// Of all rows, `group` at a time.
  DeviceMatrix run_in(std::int64_t group) {
    DeviceMatrix y = result();
    for (std::int64_t first = 0; first < case_.tokens; first += group)
      run(y, first, std::min(group, case_.tokens - first));
    y.fetch();
    return y;
  }
  void run(const LinearArgs& args) { run_fused(cuda_, kernel_, args); }

  LinearArgs device_args() const {
    const WeightCase& w = case_.weight;
    const auto stored = std::span<const std::byte>(device_stored_.bytes).first(stored_.size());
    return {.x = x_.const_view().slice_cols(case_.x_misses, w.cols),
            .weight = {format_, stored, w.rows, w.cols},
            .bias = case_.bias == FusedBias::kNone ? ConstVectorView{} : device_bias_.vector(),
            .epilogue = case_.epilogue,
            .residual = case_.residual ? residual_.const_view() : ConstMatrixView{}};
  }
  /// The dense product of the expanded matrix.
  std::vector<Expected> expected(const DeviceMatrix& y) const {
    const WeightCase& w = case_.weight;
    return linear_ref(
        {.x = x_.const_host_view().slice_cols(case_.x_misses, w.cols),
         .weight = {{Encoding::kDense, format_.dtype}, std::as_bytes(std::span(expanded_)), w.rows, w.cols},
         .bias = case_.bias == FusedBias::kNone ? ConstVectorView{} : bias_.vector(),
         .epilogue = case_.epilogue,
         .residual = case_.residual ? residual_.const_host_view() : ConstMatrixView{},
         .y = {nullptr, y.dtype(), y.rows(), y.cols(), y.cols()}});
  }
  double expanded(std::int64_t row, std::int64_t col) const {
    return element(reinterpret_cast<const std::byte*>(expanded_.data()), format_.dtype,
                   row * case_.weight.cols + col);
  }

 private:
  WeightFormat bias_format() const {
    const bool f16 = (format_.dtype == DType::kF16) != (case_.bias == FusedBias::kOtherType);
    return f16 ? WeightFormat::kDenseF16 : WeightFormat::kDenseBF16;
  }

  CudaDeviceUnderTest& cuda_;
  const FusedKernel& kernel_;
  const FusedCase case_;
  Random random_{7};
  const TensorSpec tensor_;
  const WeightFormat format_;
  const std::vector<std::byte> stored_;
  std::vector<std::uint16_t> expanded_;
  const DeviceMemory device_stored_;
  DeviceMatrix x_, residual_;
  const DenseWeight bias_;
  const DeviceWeight device_bias_;
};

/// Close to the dense product of the expanded matrix, in fp32 up to the last rounding.
inline void expect_close_to_reference(FusedOperands& operands, std::int64_t tokens) {
  const DeviceMatrix y = operands.run_in(tokens);
  // The reference's bound, four times: tensor cores cut instead of rounding (twice), after aligning the terms
  // of a step to the largest (twice). Nothing is rounded to y's type on the way.
  y.expect_near(operands.expected(y), [](const Expected& e, std::size_t) { return 4 * e.tolerance; });
}

inline void expect_same_bits_again(FusedOperands& operands, std::int64_t tokens) {
  const DeviceMatrix first = operands.run_in(tokens);
  operands.run_in(tokens).expect_same_bits(first);
}

/// A row's bits do not depend on how many others there are.
inline void expect_batch_invariance(FusedOperands& operands, std::int64_t tokens) {
  const DeviceMatrix together = operands.run_in(tokens);
  for (const std::int64_t group : {1, 7, 8, 16, 23, 32, 64}) {
    if (group >= tokens) break;
    SCOPED_TRACE(::testing::Message() << group << " rows a call");
    operands.run_in(group).expect_same_bits(together);
  }
}

/// Each decoded value is that of the format's definition: rows of x that are zero but for a one give columns
/// of the weight, exactly.
inline void expect_exact_values(CudaDeviceUnderTest& cuda, FusedOperands& operands, const FusedCase& c,
                                DType dtype) {
  constexpr std::int64_t kRows = 8;
  for (std::int64_t first = 0; first < c.weight.cols; first += kRows) {
    const std::int64_t rows = std::min(kRows, c.weight.cols - first);
    GuardedMatrix identity(rows, c.weight.cols, c.padding);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t i = 0; i < c.weight.cols; ++i) identity.at(r, i) = i == first + r ? 1.0F : 0.0F;
    }
    DeviceMatrix x(cuda, dtype, identity);
    DeviceMatrix y(cuda, DType::kF32, rows, c.weight.rows);
    LinearArgs args = operands.device_args();
    args.x = x.const_view();
    args.bias = {};
    args.epilogue = Epilogue::kNone;
    args.residual = {};
    args.y = y.view();
    operands.run(args);
    y.fetch();
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t i = 0; i < c.weight.rows; ++i)
        ASSERT_EQ(y.at(r, i), operands.expanded(i, first + r)) << "row " << i << " column " << first + r;
    }
  }
}

}  // namespace sluice::kernels::testing
