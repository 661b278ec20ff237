// The product over Tiled-CSL for every device from compute capability 8.0 on.
#include "tests/kernels/cuda/fused_on_device.h"

namespace sluice::kernels {
namespace {

using namespace testing;

constexpr const char* kName = "tiled_csl_sm80";

// Edges of tiles (128 x 64) and multipliers (8 tokens); lists that do and do not fit registers; the last have
// their columns divided among thread blocks.
const FusedCase kTiledCslCases[] = {
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

class FusedTiledCslSm80 : public CudaTest,
                          public ::testing::WithParamInterface<std::tuple<DType, FusedCase>> {
 protected:
  const FusedKernel& kernel() const { return fused_kernel(kName); }
  DType dtype() const { return std::get<0>(GetParam()); }
  const FusedCase& test_case() const { return std::get<1>(GetParam()); }
};

TEST_P(FusedTiledCslSm80, IsCloseToTheReference) {
  FusedOperands operands(*cuda, kernel(), dtype(), test_case());
  expect_close_to_reference(operands, test_case().tokens);
}

TEST_P(FusedTiledCslSm80, GivesTheSameBitsAgain) {
  FusedOperands operands(*cuda, kernel(), dtype(), test_case());
  expect_same_bits_again(operands, test_case().tokens);
}

TEST_P(FusedTiledCslSm80, ARowDoesNotSeeItsNeighbours) {
  FusedOperands operands(*cuda, kernel(), dtype(), test_case());
  expect_batch_invariance(operands, test_case().tokens);
}

INSTANTIATE_TEST_SUITE_P(Cuda, FusedTiledCslSm80,
                         ::testing::Combine(::testing::Values(DType::kF16, DType::kBF16),
                                            ::testing::ValuesIn(kTiledCslCases)),
                         [](const auto& test) {
                           return fmt::format("{}_{}", dtype_name(std::get<0>(test.param)),
                                              std::get<1>(test.param).weight.name);
                         });

class FusedTiledCslSm80Values : public CudaTest {};

TEST_F(FusedTiledCslSm80Values, AreThoseOfTheMatrix) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    for (const double sparsity : {0.0, 0.5, 0.9}) {
      const FusedCase c{{"", 261, 200, Mask::kRandom, sparsity}};
      SCOPED_TRACE(sparsity);
      FusedOperands operands(*cuda, fused_kernel(kName), dtype, c);
      expect_exact_values(*cuda, operands, c, dtype);
    }
  }
}

}  // namespace
}  // namespace sluice::kernels
