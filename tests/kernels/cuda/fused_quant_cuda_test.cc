// Fused products over quantised weights, on the CUDA device.
#include <cmath>

#include <fmt/format.h>

#include "core/units.h"
#include "tests/kernels/cuda/fused_on_device.h"

namespace sluice::kernels {
namespace {

using namespace testing;

// Edges of tiles (256 rows), blocks (128), groups (64, 128), steps (64 or 128 columns) and multipliers (8
// tokens); the last but one has its columns divided among thread blocks.
const FusedCase kCases[] = {
    {{"one_element", 1, 1, Mask::kRandom, 0.0}, 1},
    {{"one_row", 1, 300, Mask::kRandom, 0.0}, 3, FusedBias::kSameType},
    {{"one_column", 300, 1, Mask::kRandom, 0.0}, 9, FusedBias::kOtherType},
    {{"one_group", 128, 64, Mask::kRandom, 0.0},
     8,
     FusedBias::kNone,
     Epilogue::kNone,
     false,
     FusedResult::kF32},
    {{"off_the_groups", 197, 91, Mask::kRandom, 0.1},
     16,
     FusedBias::kSameType,
     Epilogue::kRelu,
     true,
     FusedResult::kSameType,
     5},
    {{"just_over", 257, 129, Mask::kRandom, 0.0},
     17,
     FusedBias::kOtherType,
     Epilogue::kGelu,
     false,
     FusedResult::kF32,
     8},
    {{"zero_rows", 300, 200, Mask::kRows, 0.5}, 24, FusedBias::kNone, Epilogue::kGeluTanh, true},
    {{"zero_columns", 130, 264, Mask::kColumns, 0.7}, 33, FusedBias::kSameType, Epilogue::kNone, true},
    {{"zeros", 300, 200, Mask::kRandom, 1.0}, 5, FusedBias::kSameType},
    {{"padded_x", 384, 520, Mask::kRandom, 0.0},
     50,
     FusedBias::kNone,
     Epilogue::kRelu,
     false,
     FusedResult::kF32,
     3},
    {{"unaligned_x", 130, 200, Mask::kRandom, 0.6},
     3,
     FusedBias::kNone,
     Epilogue::kNone,
     false,
     FusedResult::kSameType,
     7,
     1},
    {{"divided", 700, 2056, Mask::kRandom, 0.0}, 64, FusedBias::kSameType, Epilogue::kRelu, true},
    {{"divided_f32", 520, 3000, Mask::kRandom, 0.3},
     12,
     FusedBias::kOtherType,
     Epilogue::kNone,
     false,
     FusedResult::kF32},
};

/// The case as a kernel takes it: that of sm_90 copies x by tensors, whose rows start at multiples of 16
/// bytes.
FusedCase case_of(const FusedKernel& kernel, FusedCase c) {
  if (kernel.min_compute_capability < 90) return c;
  c.x_misses = 0;
  c.padding = align_up(c.weight.cols + c.padding, 8) - c.weight.cols;
  return c;
}

/// Of all kernels of quantised weights that this build has.
std::vector<std::string> kernel_names() {
  std::vector<std::string> names;
  for (const FusedKernel& kernel : fused_kernels()) {
    if (kernel.name.starts_with("int")) names.emplace_back(kernel.name);
  }
  return names;
}

/// Skips what the device does not run.
class FusedQuantTest : public CudaTest {
 protected:
  void use_kernel(const std::string& name) {
    if (IsSkipped()) return;
    kernel_ = &fused_kernel(name);
    int major = 0;
    int minor = 0;
    CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
    if (!kernel_->runs_on(10 * major + minor)) GTEST_SKIP() << name << " does not run on this device";
  }
  const FusedKernel& kernel() const { return *kernel_; }

 private:
  const FusedKernel* kernel_ = nullptr;
};

class FusedQuantCuda : public FusedQuantTest,
                       public ::testing::WithParamInterface<std::tuple<std::string, DType, FusedCase>> {
 protected:
  void SetUp() override {
    FusedQuantTest::SetUp();
    use_kernel(std::get<0>(GetParam()));
  }
  DType dtype() const { return std::get<1>(GetParam()); }
  FusedCase test_case() const { return case_of(kernel(), std::get<2>(GetParam())); }
};

TEST_P(FusedQuantCuda, IsCloseToTheReference) {
  FusedOperands operands(*cuda, kernel(), dtype(), test_case());
  expect_close_to_reference(operands, test_case().tokens);
}

TEST_P(FusedQuantCuda, GivesTheSameBitsAgain) {
  FusedOperands operands(*cuda, kernel(), dtype(), test_case());
  expect_same_bits_again(operands, test_case().tokens);
}

TEST_P(FusedQuantCuda, ARowDoesNotSeeItsNeighbours) {
  FusedOperands operands(*cuda, kernel(), dtype(), test_case());
  expect_batch_invariance(operands, test_case().tokens);
}

INSTANTIATE_TEST_SUITE_P(Cuda, FusedQuantCuda,
                         ::testing::Combine(::testing::ValuesIn(kernel_names()),
                                            ::testing::Values(DType::kF16, DType::kBF16),
                                            ::testing::ValuesIn(kCases)),
                         [](const auto& test) {
                           return fmt::format("{}_{}_{}", std::get<0>(test.param),
                                              dtype_name(std::get<1>(test.param)),
                                              std::get<2>(test.param).weight.name);
                         });

class FusedQuantValues : public FusedQuantTest,
                         public ::testing::WithParamInterface<std::tuple<std::string, DType>> {
 protected:
  void SetUp() override {
    FusedQuantTest::SetUp();
    use_kernel(std::get<0>(GetParam()));
  }
};

TEST_P(FusedQuantValues, AreThoseOfTheDefinition) {
  const DType dtype = std::get<1>(GetParam());
  for (const FusedCase& any : {FusedCase{{"whole", 256, 256, Mask::kRandom, 0.0}},
                               FusedCase{{"off_the_groups", 133, 201, Mask::kRandom, 0.2}}}) {
    const FusedCase c = case_of(kernel(), any);
    SCOPED_TRACE(c.weight.name);
    FusedOperands operands(*cuda, kernel(), dtype, c);
    expect_exact_values(*cuda, operands, c, dtype);
  }
}

// Groups whose minimum is tiny beside their scale: code * scale + minimum is rounded twice by the definition,
// and one operation of the 16-bit type would give other bits. Magnitudes from the smallest subnormal to a
// 2^16th of the scale; signs of both kinds.
TEST_P(FusedQuantValues, AreThoseOfTheDefinitionAboveATinyMinimum) {
  const DType dtype = std::get<1>(GetParam());
  const FusedCase c{{"tiny_minima", 256, 512, Mask::kRandom, 0.0}};
  const auto bits = [&](float x) { return dtype == DType::kF16 ? to_half(x).bits : to_bfloat16(x).bits; };
  Random random(9);
  std::uniform_real_distribution<float> uniform(0.0F, 1.0F);
  std::vector<std::uint16_t> values;
  for (std::int64_t r = 0; r < c.weight.rows; ++r) {
    for (std::int64_t k = 0; k < c.weight.cols; ++k) {
      const auto row = static_cast<int>(r);
      const float range = std::ldexp(1.0F + 0.01F * static_cast<float>(k / 64 * 7), row % 14 - 4);
      const float tiny = std::ldexp(range, -16 - row % 11) * (row % 3 == 0 ? -1.0F : 1.0F);
      values.push_back(bits(k % 64 == 0 ? tiny : std::max(std::abs(tiny), range * uniform(random))));
    }
  }
  FusedOperands operands(*cuda, kernel(), dtype, c, values);
  expect_exact_values(*cuda, operands, c, dtype);
}

// The largest values there are: a code below the least of the format, as bytes behind a row would be one,
// would be infinite, and no number times a zero of x.
TEST_P(FusedQuantValues, AreFiniteBehindARow) {
  const DType dtype = std::get<1>(GetParam());
  const float largest = dtype == DType::kF16 ? 65504.0F : 3.3895314e38F;
  for (const std::int64_t cols : {8, 72, 200, 328}) {
    const FusedCase c{{"largest", 130, cols, Mask::kRandom, 0.0}};
    SCOPED_TRACE(::testing::Message() << cols << " columns");
    std::vector<std::uint16_t> values;
    for (std::int64_t i = 0; i < c.weight.rows * cols; ++i) {
      const float value = i % 3 == 0 ? -largest : largest;
      values.push_back(dtype == DType::kF16 ? to_half(value).bits : to_bfloat16(value).bits);
    }
    FusedOperands operands(*cuda, kernel(), dtype, c, values);
    expect_exact_values(*cuda, operands, c, dtype);
  }
}

TEST_P(FusedQuantValues, AreThoseOfAGraphToo) {
  const FusedCase divided = {{"divided", 700, 2056, Mask::kRandom, 0.0}, 12};
  FusedOperands operands(*cuda, kernel(), std::get<1>(GetParam()), divided);
  expect_same_bits_by_graph(*cuda, kernel(), operands.device_args());
}

INSTANTIATE_TEST_SUITE_P(Cuda, FusedQuantValues,
                         ::testing::Combine(::testing::ValuesIn(kernel_names()),
                                            ::testing::Values(DType::kF16, DType::kBF16)),
                         [](const auto& test) {
                           return fmt::format("{}_{}", std::get<0>(test.param),
                                              dtype_name(std::get<1>(test.param)));
                         });

// Needs no device, and no such weight: nothing is read.
TEST(FusedQuantLimits, AreThoseOfOffsets) {
  alignas(16) static constexpr std::byte kStored[16] = {};
  constexpr std::int64_t kMost = std::int64_t{1} << 25;
  for (const std::string& name : kernel_names()) {
    const FusedKernel& kernel = fused_kernel(name);
    for (const std::int64_t cols : {kMost, kMost + 1}) {
      LinearArgs args;
      args.weight = {{kernel.encoding, DType::kF16}, kStored, 1, cols};
      args.x = {nullptr, DType::kF16, 8, cols, cols};
      args.y = {nullptr, DType::kF16, 8, 1, 1};
      EXPECT_EQ(kernel.can_run(args), cols == kMost) << kernel.name;
    }
  }
}

TEST(FusedQuantLimits, OnSm90AreThoseOfTensorCopies) {
  alignas(16) static constexpr std::byte kStored[16] = {};
  for (const std::string& name : kernel_names()) {
    const FusedKernel& kernel = fused_kernel(name);
    const bool any = kernel.min_compute_capability < 90;
    const auto can_run = [&](const std::byte* x, std::int64_t rows, std::int64_t stride) {
      LinearArgs args;
      args.weight = {{kernel.encoding, DType::kF16}, kStored, 1, 60};
      args.x = {const_cast<std::byte*>(x), DType::kF16, rows, 60, stride};
      args.y = {nullptr, DType::kF16, rows, 1, 1};
      return kernel.can_run(args);
    };
    EXPECT_TRUE(can_run(kStored, 2, 64)) << name;
    EXPECT_TRUE(can_run(kStored, 1, 60)) << name;
    EXPECT_EQ(can_run(kStored, 2, 60), any) << name;
    EXPECT_EQ(can_run(kStored + 2, 2, 64), any) << name;
  }
}

class FusedQuantRefusal : public CudaTest {};

TEST_F(FusedQuantRefusal, TakesNoMoreRowsAndNoOtherTypesThanItSays) {
  const FusedKernel& kernel = fused_kernel("int4_g64_sm80");
  FusedOperands operands(*cuda, kernel, DType::kF16, {{"", 128, 64, Mask::kRandom, 0.0}, 4});
  DeviceMatrix y = operands.result();
  LinearArgs args = operands.device_args();
  args.y = y.view();
  EXPECT_TRUE(kernel.can_run(args));
  LinearArgs many = args;
  many.x.rows = many.y.rows = kernel.max_rows + 1;
  EXPECT_FALSE(kernel.can_run(many));
  LinearArgs mixed = args;
  mixed.x.dtype = DType::kBF16;
  EXPECT_FALSE(kernel.can_run(mixed));
  LinearArgs wide = args;
  wide.y.dtype = DType::kF32;
  wide.residual = args.x;
  EXPECT_FALSE(kernel.can_run(wide));
}

}  // namespace
}  // namespace sluice::kernels
