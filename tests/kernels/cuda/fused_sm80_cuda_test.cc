// The products over sparse weights for every device from compute capability 8.0 on.
#include "tests/kernels/cuda/fused_on_device.h"

namespace sluice::kernels {
namespace {

using namespace testing;

const char* const kSparseKernels[] = {"tiled_csl_sm80", "bitmap_sm80"};

// Edges of tiles (128 x 64 and 256 x 128) and multipliers (8 tokens); lists of Tiled-CSL that do and do not
// fit registers, masks whose nonzeros have no room in shared memory; the last have their columns divided
// among thread blocks.
const FusedCase kSparseCases[] = {
    {{"one_element", 1, 1, Mask::kRandom, 0.0}, 1},
    {{"one_row", 1, 300, Mask::kRandom, 0.6}, 3, FusedBias::kSameType},
    {{"one_column", 300, 1, Mask::kRandom, 0.6}, 9, FusedBias::kOtherType},
    {{"one_tile", 128, 64, Mask::kRandom, 0.8},
     8,
     FusedBias::kNone,
     Epilogue::kNone,
     false,
     FusedResult::kF32},
    {{"off_the_tiles", 197, 91, Mask::kRandom, 0.7},
     16,
     FusedBias::kSameType,
     Epilogue::kRelu,
     true,
     FusedResult::kSameType,
     5},
    {{"just_over", 257, 129, Mask::kRandom, 0.8},
     17,
     FusedBias::kOtherType,
     Epilogue::kGelu,
     false,
     FusedResult::kF32,
     8},
    {{"full", 256, 192, Mask::kRandom, 0.0}, 24, FusedBias::kNone, Epilogue::kGeluTanh, true},
    {{"empty", 300, 200, Mask::kRandom, 1.0}, 5, FusedBias::kSameType},
    {{"one_full_tile", 384, 256, Mask::kOneTile}, 33, FusedBias::kSameType},
    {{"column_pairs", 260, 256, Mask::kColumnPairs}, 64, FusedBias::kNone, Epilogue::kRelu, true},
    {{"last_element", 300, 300, Mask::kLastElement}, 65, FusedBias::kSameType},
    {{"unaligned_x", 130, 200, Mask::kRandom, 0.6},
     3,
     FusedBias::kNone,
     Epilogue::kNone,
     false,
     FusedResult::kSameType,
     7,
     1},
    {{"divided", 400, 1544, Mask::kRandom, 0.8}, 100, FusedBias::kSameType, Epilogue::kRelu, true},
    {{"divided_half", 400, 1000, Mask::kRandom, 0.45},
     128,
     FusedBias::kOtherType,
     Epilogue::kNone,
     false,
     FusedResult::kF32,
     3},
};

// Chunks of a bitmap: 32 segments of 128 columns, that may go on in the next row.
const FusedCase kChunkCases[] = {
    {{"one_of_many_tiles", 520, 640, Mask::kOneTile}, 16, FusedBias::kNone, Epilogue::kRelu},
    {{"rows", 300, 700, Mask::kRows, 0.8}, 12, FusedBias::kSameType},
    {{"whole_chunks", 70, 8192, Mask::kRandom, 0.7}, 9, FusedBias::kSameType},
};

class FusedSm80 : public CudaTest,
                  public ::testing::WithParamInterface<std::tuple<const char*, DType, FusedCase>> {
 protected:
  const FusedKernel& kernel() const { return fused_kernel(std::get<0>(GetParam())); }
  DType dtype() const { return std::get<1>(GetParam()); }
  const FusedCase& test_case() const { return std::get<2>(GetParam()); }
};

TEST_P(FusedSm80, IsCloseToTheReference) {
  FusedOperands operands(*cuda, kernel(), dtype(), test_case());
  expect_close_to_reference(operands, test_case().tokens);
}

TEST_P(FusedSm80, GivesTheSameBitsAgain) {
  FusedOperands operands(*cuda, kernel(), dtype(), test_case());
  expect_same_bits_again(operands, test_case().tokens);
}

TEST_P(FusedSm80, ARowDoesNotSeeItsNeighbours) {
  FusedOperands operands(*cuda, kernel(), dtype(), test_case());
  expect_batch_invariance(operands, test_case().tokens);
}

std::string sparse_case_name(const ::testing::TestParamInfo<FusedSm80::ParamType>& test) {
  return fmt::format("{}_{}_{}", std::get<0>(test.param), dtype_name(std::get<1>(test.param)),
                     std::get<2>(test.param).weight.name);
}
const auto kDTypes = ::testing::Values(DType::kF16, DType::kBF16);
INSTANTIATE_TEST_SUITE_P(Cuda, FusedSm80,
                         ::testing::Combine(::testing::ValuesIn(kSparseKernels), kDTypes,
                                            ::testing::ValuesIn(kSparseCases)),
                         sparse_case_name);
INSTANTIATE_TEST_SUITE_P(CudaChunks, FusedSm80,
                         ::testing::Combine(::testing::Values("bitmap_sm80"), kDTypes,
                                            ::testing::ValuesIn(kChunkCases)),
                         sparse_case_name);

class FusedSm80Values : public CudaTest {};

TEST_F(FusedSm80Values, AreThoseOfTheMatrix) {
  for (const char* name : kSparseKernels) {
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      for (const double sparsity : {0.0, 0.5, 0.9}) {
        const FusedCase c{{"", 261, 200, Mask::kRandom, sparsity}};
        SCOPED_TRACE(::testing::Message() << name << ", " << sparsity);
        FusedOperands operands(*cuda, fused_kernel(name), dtype, c);
        expect_exact_values(*cuda, operands, c, dtype);
      }
    }
  }
}

// Needs no device, and no such weight: nothing is read.
TEST(FusedSm80BitmapLimits, AreThoseOfAddressesAndCounts) {
  struct Limit {
    const char* name;
    std::int64_t rows, cols;
    std::size_t bytes;
    bool can_run;
  };
  constexpr std::int64_t kSide = std::int64_t{1} << 30;
  constexpr std::size_t kBytes = std::size_t{8} << 30;
  constexpr Limit kLimits[] = {
      {"all bytes that addresses reach", 65536, 65536, kBytes, true},
      {"a vector more", 65536, 65536, kBytes + 16, false},
      {"the most rows", kSide, 1, 4096, true},
      {"a row more", kSide + 1, 1, 4096, false},
      {"the most columns", 1, kSide, 4096, true},
      {"a column more", 1, kSide + 1, 4096, false},
  };
  alignas(16) static constexpr std::byte kStored[16] = {};
  for (const Limit& limit : kLimits) {
    LinearArgs args;
    args.weight = {{Encoding::kBitmap, DType::kF16}, {kStored, limit.bytes}, limit.rows, limit.cols};
    args.x = {nullptr, DType::kF16, 8, limit.cols, limit.cols};
    args.y = {nullptr, DType::kF16, 8, limit.rows, limit.rows};
    EXPECT_EQ(fused_kernel("bitmap_sm80").can_run(args), limit.can_run) << limit.name;
  }
}

}  // namespace
}  // namespace sluice::kernels
