// Fused products over sparse weights on the CUDA device: every kernel of the table that this device can run,
// against the plain product of the expanded matrix.
#include <algorithm>
#include <cmath>
#include <optional>

#include <gmock/gmock.h>

#include "kernels/device/cuda/check.h"
#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/format/cuda/fused_cuda.h"
#include "kernels/format/format.h"
#include "tests/kernels/cuda/device_operands.h"
#include "tests/kernels/cuda/fused_on_device.h"
#include "tests/kernels/pairs24_entries.h"
#include "tests/kernels/weight_cases.h"

namespace sluice::kernels {
namespace {

using namespace testing;

/// A weight in its stored form on both sides, and expanded.
struct SparseWeight {
  SparseWeight(CudaDeviceUnderTest& cuda, const WeightCase& c, WeightFormat wanted)
      : tensor{"decoder.layers.0.fc1.weight", 1, c.rows, c.cols, false, SplitRule::kRows},
        format(wanted),
        values(make_weights(c, wanted.dtype)) {
    std::ranges::replace(values, std::uint16_t{0x8000U}, std::uint16_t{0});
    keep(cuda, encode_matrix(tensor, wanted, values));
  }
  SparseWeight(CudaDeviceUnderTest& cuda, const ManyEntries& many)
      : tensor(many.tensor), format(many.format), values(many.values) {
    keep(cuda, many.stored);
  }
  WeightView stored() const {
    return {format, std::span<const std::byte>(memory.bytes).first(stored_bytes), tensor.rows, tensor.cols};
  }
  WeightView dense() const {
    return {{Encoding::kDense, format.dtype}, std::as_bytes(std::span(values)), tensor.rows, tensor.cols};
  }

  TensorSpec tensor;
  WeightFormat format;
  std::vector<std::uint16_t> values;
  std::size_t stored_bytes = 0;
  DeviceMemory memory;

 private:
  void keep(CudaDeviceUnderTest& cuda, std::span<const std::byte> bytes) {
    stored_bytes = bytes.size();
    memory = cuda.put(bytes);
  }
};

/// What surrounds the product.
struct Surroundings {
  std::int64_t tokens;
  DType dtype = DType::kF16;
  bool bias = false;
  Epilogue epilogue = Epilogue::kNone;
  bool residual = false, f32_result = false;
  std::int64_t padding = 0;  // between rows of residual and y
};
constexpr Surroundings kSurroundings[] = {
    {1},
    {3, DType::kBF16, true, Epilogue::kRelu},
    {8, DType::kF16, true, Epilogue::kNone, true, false, 2},
    {9, DType::kF16, false, Epilogue::kGelu, true, false, 1},
    {16, DType::kF16, true, Epilogue::kNone, false, true},
    {17, DType::kBF16, false, Epilogue::kGeluTanh, true},
    {32, DType::kBF16, false, Epilogue::kNone, false, true, 3},
    {40, DType::kF16, true, Epilogue::kRelu, true},
    {64, DType::kBF16, true, Epilogue::kNone, true},
    {65, DType::kF16, true, Epilogue::kGelu},
    {100, DType::kBF16, false, Epilogue::kRelu, true, false, 5},
    {128, DType::kF16, true, Epilogue::kNone, true},
};

class FusedSparse : public CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped()) return;
    int major = 0;
    int minor = 0;
    CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
    const int capability = 10 * major + minor;
    for (const FusedKernel& kernel : fused_kernels()) {
      const bool sparse = kernel.encoding == Encoding::kTiledCsl || kernel.encoding == Encoding::kBankCsl ||
                          kernel.encoding == Encoding::kPairs24 || kernel.encoding == Encoding::kBitmap;
      if (sparse && kernel.runs_on(capability)) kernels_.push_back(&kernel);
    }
    if (kernels_.empty()) GTEST_SKIP() << "no fused sparse product for compute capability " << capability;
    if (capability == 90) {
      ASSERT_GE(kernels_.size(), 4U) << "one for each format";
    }
  }
  /// Those that this device can run.
  const std::vector<const FusedKernel*>& kernels() const { return kernels_; }
  void run(const FusedKernel& kernel, const LinearArgs& args) { run_fused(*cuda, kernel, args); }
  static std::int64_t to_copies(std::int64_t cols) { return (8 - cols % 8) % 8; }

 private:
  std::vector<const FusedKernel*> kernels_;
};

// 19 shapes and masks, each in all surroundings.
TEST_F(FusedSparse, IsCloseToTheReference) {
  for (const FusedKernel* kernel : kernels()) {
    for (const WeightCase& c : weight_cases()) {
      for (const DType dtype : {DType::kF16, DType::kBF16}) {
        const SparseWeight weight(*cuda, c, {kernel->encoding, dtype});
        for (const Surroundings& s : kSurroundings) {
          if (s.dtype != dtype) continue;
          SCOPED_TRACE(::testing::Message() << kernel->name << ", " << c.name << ", " << s.tokens << " rows");
          Random random(3);
          const DenseWeight bias(s.tokens % 3 == 0 ? WeightFormat::kDenseBF16 : WeightFormat::kDenseF16, 1,
                                 c.rows, random);
          const DeviceWeight device_bias(*cuda, bias);
          DeviceMatrix x(*cuda, dtype, GuardedMatrix::random(s.tokens, c.cols, to_copies(c.cols), random));
          DeviceMatrix residual(*cuda, dtype, GuardedMatrix::random(s.tokens, c.rows, s.padding, random));
          DeviceMatrix y(*cuda, s.f32_result ? DType::kF32 : dtype, s.tokens, c.rows, s.padding);
          LinearArgs args{.x = x.const_view(),
                          .weight = weight.stored(),
                          .bias = s.bias ? device_bias.vector() : ConstVectorView{},
                          .epilogue = s.epilogue,
                          .residual = s.residual ? residual.const_view() : ConstMatrixView{},
                          .y = y.view()};
          run(*kernel, args);
          y.fetch();
          LinearArgs host = args;
          host.x = x.const_host_view();
          host.weight = weight.dense();
          if (s.bias) host.bias = bias.vector();
          if (s.residual) host.residual = residual.const_host_view();
          host.y = y.host_view();
          // Tensor cores cut instead of rounding (twice the reference's bound), after aligning the terms of a
          // step to the largest (twice).
          y.expect_near(linear_ref(host), [](const Expected& e, std::size_t) { return 4 * e.tolerance; });
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

// Enough units that row blocks are shared by blocks of the grid.
constexpr WeightCase kShared = {"shared", 1500, 5000, Mask::kRandom, 0.75};
constexpr WeightCase kUneven = {"uneven", 1100, 4100, Mask::kOneTile};
constexpr WeightCase kFew = {"few", 1100, 4100, Mask::kRandom, 0.86};
constexpr WeightCase kFewer = {"fewer", 1100, 4100, Mask::kRandom, 0.92};

TEST_F(FusedSparse, SharedRowBlocksAreCloseToTheReference) {
  for (const FusedKernel* kernel : kernels()) {
    for (const WeightCase& c : {kShared, kUneven, kFew, kFewer}) {
      const SparseWeight weight(*cuda, c, {kernel->encoding, DType::kF16});
      for (const std::int64_t tokens : {2, 16, 32, 64, 128}) {
        SCOPED_TRACE(::testing::Message() << kernel->name << ", " << c.name << ", " << tokens << " rows");
        Random random(5);
        DeviceMatrix x(*cuda, DType::kF16, GuardedMatrix::random(tokens, c.cols, to_copies(c.cols), random));
        DeviceMatrix y(*cuda, DType::kF32, tokens, c.rows);
        const LinearArgs args{.x = x.const_view(), .weight = weight.stored(), .y = y.view()};
        run(*kernel, args);
        y.fetch();
        // The first and the last rows of x: the oracle is slow.
        for (const std::int64_t t : {std::int64_t{0}, tokens - 1}) {
          DeviceMatrix row(*cuda, DType::kF32, 1, c.rows);
          const LinearArgs host{
              .x = x.const_host_view().slice_rows(t, 1), .weight = weight.dense(), .y = row.host_view()};
          const std::vector<Expected> expected = linear_ref(host);
          for (std::int64_t i = 0; i < c.rows; ++i) {
            const Expected& e = expected[static_cast<std::size_t>(i)];
            ASSERT_LE(std::abs(y.at(t, i) - e.value), 4 * e.tolerance) << "row " << t << " column " << i;
          }
        }
      }
    }
  }
}

TEST_F(FusedSparse, UpTo32EntriesOfAStripAreCloseToTheReference) {
  bool ran = false;
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const ManyEntries many(dtype);
    expect_many_entries(many.view());
    const SparseWeight weight(*cuda, many);
    for (const FusedKernel* kernel : kernels()) {
      if (kernel->encoding != Encoding::kPairs24) continue;
      ran = true;
      for (const std::int64_t tokens : {8, 16, 32, 64, 128}) {
        SCOPED_TRACE(::testing::Message() << kernel->name << ", " << tokens << " rows");
        Random random(5);
        DeviceMatrix x(*cuda, dtype, GuardedMatrix::random(tokens, many.kCols, 0, random));
        DeviceMatrix y(*cuda, dtype, tokens, many.kRows);
        LinearArgs args{.x = x.const_view(), .weight = weight.stored(), .y = y.view()};
        run(*kernel, args);
        y.fetch();
        args.x = x.const_host_view();
        args.weight = weight.dense();
        args.y = y.host_view();
        // As above.
        y.expect_near(linear_ref(args), [](const Expected& e, std::size_t) { return 4 * e.tolerance; });
        if (HasFatalFailure()) return;
      }
    }
  }
  if (!ran) GTEST_SKIP() << "no fused product of pairs24 for this device";
}

TEST_F(FusedSparse, ARowsBitsDoNotDependOnItsNeighbours) {
  constexpr std::int64_t kTokens = 128;
  for (const FusedKernel* kernel : kernels()) {
    const SparseWeight weight(*cuda, kShared, {kernel->encoding, DType::kF16});
    Random random(5);
    DeviceMatrix x(*cuda, DType::kF16, GuardedMatrix::random(kTokens, kShared.cols, 0, random));
    DeviceMatrix all(*cuda, DType::kF16, kTokens, kShared.rows);
    run(*kernel, {.x = x.const_view(), .weight = weight.stored(), .y = all.view()});
    all.fetch();
    for (const auto& [first, tokens] : {std::pair<std::int64_t, std::int64_t>{0, 128},
                                        {0, 1},
                                        {5, 1},
                                        {0, 7},
                                        {100, 8},
                                        {3, 9},
                                        {64, 16},
                                        {50, 30},
                                        {0, 33},
                                        {60, 64},
                                        {10, 90}}) {
      SCOPED_TRACE(::testing::Message() << kernel->name << ", rows from " << first << ": " << tokens);
      DeviceMatrix part(*cuda, DType::kF16, tokens, kShared.rows);
      run(*kernel,
          {.x = x.const_view().slice_rows(first, tokens), .weight = weight.stored(), .y = part.view()});
      part.fetch();
      for (std::int64_t t = 0; t < tokens; ++t) {
        for (std::int64_t i = 0; i < kShared.rows; ++i)
          ASSERT_EQ(part.at(t, i), all.at(first + t, i)) << "row " << t << " column " << i;
      }
    }
  }
}

// A sum that is zero is told from one that is not there yet.
TEST_F(FusedSparse, ZerosOfXGiveZeros) {
  for (const FusedKernel* kernel : kernels()) {
    const SparseWeight weight(*cuda, kShared, {kernel->encoding, DType::kF16});
    for (const std::int64_t tokens : {16, 64, 128}) {
      SCOPED_TRACE(::testing::Message() << kernel->name << ", " << tokens << " rows");
      GuardedMatrix zeros(tokens, kShared.cols);
      for (std::int64_t t = 0; t < tokens; ++t) {
        for (std::int64_t i = 0; i < kShared.cols; ++i) zeros.at(t, i) = 0;
      }
      const DeviceMatrix x(*cuda, DType::kF16, zeros);
      DeviceMatrix y(*cuda, DType::kF32, tokens, kShared.rows);
      run(*kernel, {.x = x.const_view(), .weight = weight.stored(), .y = y.view()});
      y.fetch();
      for (std::int64_t t = 0; t < tokens; ++t) {
        for (std::int64_t i = 0; i < kShared.rows; ++i) {
          ASSERT_EQ(y.at(t, i), 0) << "row " << t << " column " << i;
          ASSERT_FALSE(std::signbit(y.at(t, i))) << "row " << t << " column " << i;
        }
      }
    }
  }
}

TEST_F(FusedSparse, AGraphMayBeLaunchedAgain) {
  for (const FusedKernel* kernel : kernels()) {
    for (const WeightCase& c : {kShared, kFewer}) {
      SCOPED_TRACE(::testing::Message() << kernel->name << ", " << c.name);
      const SparseWeight weight(*cuda, c, {kernel->encoding, DType::kF16});
      Random random(5);
      DeviceMatrix x(*cuda, DType::kF16, GuardedMatrix::random(16, c.cols, to_copies(c.cols), random));
      expect_same_bits_by_graph(*cuda, *kernel, {.x = x.const_view(), .weight = weight.stored()});
    }
  }
}

TEST_F(FusedSparse, RefusesWhatItCannotRead) {
  for (const FusedKernel* kernel : kernels()) {
    SCOPED_TRACE(kernel->name);
    const SparseWeight weight(*cuda, weight_cases()[3], {kernel->encoding, DType::kF16});
    Random random(5);
    DeviceMatrix x(*cuda, DType::kF16, GuardedMatrix::random(200, weight.tensor.cols, 0, random));
    DeviceMatrix y(*cuda, DType::kF16, 200, weight.tensor.rows);
    LinearArgs args{
        .x = x.const_view().slice_rows(0, 128), .weight = weight.stored(), .y = y.view().slice_rows(0, 128)};
    EXPECT_TRUE(kernel->can_run(args));
    LinearArgs other = args;
    other.x = x.const_view();
    other.y = y.view();
    EXPECT_FALSE(kernel->can_run(other)) << "too many rows";
    // Tensor copies, which only those for sm_90a make, want multiples of 16 bytes.
    const bool takes_any_alignment = kernel->max_compute_capability > 90;
    other = args;
    other.x.data += 2;
    EXPECT_EQ(kernel->can_run(other), takes_any_alignment) << "x is not aligned";
    other = args;
    other.x.stride += 1;
    EXPECT_EQ(kernel->can_run(other), takes_any_alignment) << "rows of x are not aligned";
    other = args;
    other.x.dtype = DType::kBF16;
    EXPECT_FALSE(kernel->can_run(other)) << "x is of another type";
    other = args;
    other.weight.format.encoding = Encoding::kBitmapInt8;
    EXPECT_FALSE(kernel->can_run(other)) << "another format";
    other = args;
    other.y.dtype = DType::kF32;
    other.residual = y.const_view().slice_rows(0, 128);
    EXPECT_FALSE(kernel->can_run(other)) << "a residual of fp32 results";
  }
}

}  // namespace
}  // namespace sluice::kernels
