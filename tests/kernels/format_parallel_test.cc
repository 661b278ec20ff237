// A whole matrix by many threads: the bytes and values that one thread gives.
#include <limits>

#include <gtest/gtest.h>

#include "kernels/bench/bench_matrix.h"
#include "kernels/device/cpu/thread_pool.h"
#include "kernels/format/encode_parallel.h"
#include "tests/kernels/format_support.h"

namespace sluice::kernels {
namespace {

using testing::make_weights;
using testing::StoredMatrix;
using testing::to_floats;
using testing::weight_cases;
using testing::WeightCase;

class EncodedMatrixOf : public ::testing::TestWithParam<Encoding> {};

TEST_P(EncodedMatrixOf, HasTheBytesOfOneThread) {
  ThreadPool pool(3);
  for (const WeightCase& c : weight_cases()) {
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      SCOPED_TRACE(fmt::format("{} {}", c.name, dtype_name(dtype)));
      const std::vector<std::uint16_t> values = make_weights(c, dtype);
      const StoredMatrix expected({GetParam(), dtype}, c.rows, c.cols, values);
      const EncodedMatrix encoded(expected.tensor, expected.format, dtype, std::as_bytes(std::span(values)),
                                  pool);
      std::vector<std::byte> bytes(static_cast<std::size_t>(encoded.bytes()));
      encoded.write(bytes, pool);
      EXPECT_EQ(bytes, expected.bytes);
      std::vector<std::uint16_t> expanded(values.size());
      expand_matrix(expected.view(), expanded, pool);
      EXPECT_EQ(expanded, expected.expand());
    }
  }
}

// Several runs of 1 MiB, the last one short, from another type than the stored one.
TEST_P(EncodedMatrixOf, TakesManyRunsAndOtherTypes) {
  ThreadPool pool(4);
  constexpr std::int64_t kRows = 1500;
  constexpr std::int64_t kCols = 1090;
  std::vector<std::uint16_t> values(kRows * kCols);
  fill_bench_matrix(0.6, pool, values);
  const StoredMatrix expected({GetParam(), DType::kF16}, kRows, kCols, values);
  const std::vector<float> floats = to_floats(values, DType::kF16);
  const EncodedMatrix encoded(expected.tensor, expected.format, DType::kF32, std::as_bytes(std::span(floats)),
                              pool);
  std::vector<std::byte> bytes(static_cast<std::size_t>(encoded.bytes()));
  encoded.write(bytes, pool);
  EXPECT_TRUE(bytes == expected.bytes);
  std::vector<std::uint16_t> expanded(values.size());
  expand_matrix(expected.view(), expanded, pool);
  EXPECT_TRUE(expanded == expected.expand());
}

INSTANTIATE_TEST_SUITE_P(Formats, EncodedMatrixOf, ::testing::ValuesIn(all_encodings()),
                         [](const auto& each) { return std::string(encoding_name(each.param)); });

TEST(EncodedMatrix, NamesTheElementThatCannotBeHeld) {
  ThreadPool pool(2);
  std::vector<float> values(300 * 64, 1.0F);
  values[257 * 64 + 3] = std::numeric_limits<float>::quiet_NaN();
  const TensorSpec tensor{"w", 0, 300, 64, false, SplitRule::kRows};
  try {
    const EncodedMatrix encoded(tensor, {Encoding::kTiledCsl, DType::kF16}, DType::kF32,
                                std::as_bytes(std::span(values)), pool);
    ADD_FAILURE() << "a NaN was encoded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalidArgument);
    EXPECT_THAT(error.what(), ::testing::AllOf(::testing::HasSubstr("w"), ::testing::HasSubstr("257")));
  }
}

TEST(BenchMatrix, HasItsShareOfZerosAndKeepsThem) {
  ThreadPool pool(3);
  std::vector<std::uint16_t> dense(1 << 16);
  fill_bench_matrix(0, pool, dense);
  EXPECT_EQ(std::ranges::count(dense, 0), 0);
  std::vector<std::uint16_t> before = dense;
  for (const double sparsity : {0.5, 0.9}) {
    std::vector<std::uint16_t> values(dense.size());
    fill_bench_matrix(sparsity, pool, values);
    const auto zeros = static_cast<double>(std::ranges::count(values, 0));
    EXPECT_NEAR(zeros / static_cast<double>(values.size()), sparsity, 0.01);
    for (std::size_t i = 0; i < values.size(); ++i) {
      ASSERT_TRUE(values[i] == 0 || values[i] == dense[i]);
      ASSERT_TRUE(before[i] != 0 || values[i] == 0);
    }
    before = values;
  }
}

TEST(CsrMatrix, HoldsTheNonzerosOfEachRow) {
  ThreadPool pool(2);
  const std::vector<std::uint16_t> values = {0, 0x3C00, 0x8000, 0, 0, 0, 0x4000, 0, 0xBC00};
  const CsrMatrix csr = to_csr(values, 3, 3, pool);
  EXPECT_EQ(csr.row_starts, (std::vector<std::int32_t>{0, 1, 1, 3}));
  EXPECT_EQ(csr.columns, (std::vector<std::int32_t>{1, 0, 2}));
  EXPECT_EQ(csr.values, (std::vector<std::uint16_t>{0x3C00, 0x4000, 0xBC00}));
  EXPECT_EQ(csr.bytes(), 4 * 4 + 3 * 6);
}

}  // namespace
}  // namespace sluice::kernels
