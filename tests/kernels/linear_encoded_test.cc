// linear over weights that are not dense: bit by bit what the expanded matrix gives.
#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "kernels/format/format.h"
#include "kernels/ops/expand.h"
#include "kernels/ops/linear.h"
#include "tests/kernels/kernel_support.h"
#include "tests/kernels/weight_cases.h"
#include "tests/support/error_of.h"

namespace sluice::kernels {
namespace {

using namespace testing;
using sluice::testing::error_of;
using ::testing::HasSubstr;

/// A matrix in an encoding, and what it expands to.
struct Encoded {
  Encoded(const WeightCase& c, WeightFormat wanted)
      : tensor{"decoder.layers.0.fc1.weight", 1, c.rows, c.cols, false, SplitRule::kRows},
        format(wanted),
        bytes(encode_matrix(tensor, wanted, make_weights(c, wanted.dtype))),
        expanded(static_cast<std::size_t>(c.rows * c.cols)) {
    codec_of(wanted.encoding).expand(view(), 0, c.rows, expanded);
  }
  WeightView view() const { return {format, bytes, tensor.rows, tensor.cols}; }
  WeightView dense() const {
    return {{Encoding::kDense, format.dtype}, std::as_bytes(std::span(expanded)), tensor.rows, tensor.cols};
  }

  TensorSpec tensor;
  WeightFormat format;
  std::vector<std::byte> bytes;
  std::vector<std::uint16_t> expanded;
};

std::vector<WeightFormat> encoded_formats() {
  std::vector<WeightFormat> formats;
  for (const Encoding encoding : all_encodings()) {
    if (encoding == Encoding::kDense) continue;
    for (const DType dtype : {DType::kF16, DType::kBF16}) formats.push_back({encoding, dtype});
  }
  return formats;
}

class LinearEncoded : public ::testing::TestWithParam<WeightFormat> {};

TEST_P(LinearEncoded, GivesTheBitsOfTheExpandedMatrix) {
  ThreadPool pool(2);
  Stream stream(pool);
  for (const WeightCase& c : weight_cases()) {
    const Encoded weight(c, GetParam());
    std::vector<std::byte> scratch(
        static_cast<std::size_t>(expansion_bytes(GetParam(), c.rows, c.cols, DeviceKind::kCpu)));
    Random random(3);
    const DenseWeight bias(WeightFormat::kDenseF16, 1, c.rows, random);
    for (const std::int64_t rows : {1, 20}) {
      const GuardedMatrix x = GuardedMatrix::random(rows, c.cols, 3, random);
      const GuardedMatrix residual = GuardedMatrix::random(rows, c.rows, 2, random);
      const auto run = [&](const WeightView& view, std::span<std::byte> space) {
        GuardedMatrix y(rows, c.rows, 1);
        linear({.x = x.view(),
                .weight = view,
                .bias = bias.vector(),
                .epilogue = Epilogue::kRelu,
                .residual = residual.view(),
                .y = y.view(),
                .scratch = space},
               stream);
        y.expect_guards_intact();
        return y;
      };
      SCOPED_TRACE(fmt::format("{} with {} rows", c.name, rows));
      run(weight.view(), scratch).expect_same_bits(run(weight.dense(), {}));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, LinearEncoded, ::testing::ValuesIn(encoded_formats()),
                         [](const auto& tested) { return weight_format_name(tested.param); });

TEST(LinearEncodedSlices, AreExpandedOneByOneWhereTheMatrixIsLarge) {
  const WeightFormat format{Encoding::kBitmap, DType::kF16};
  // 9000 columns: a slice of 24 MiB has less than 1398 rows.
  const WeightCase c{"wide", 1500, 9000, Mask::kRandom, 0.9};
  const Encoded weight(c, format);
  const std::int64_t bytes = expansion_bytes(format, c.rows, c.cols, DeviceKind::kCpu);
  EXPECT_LE(bytes, expanded_slice_bytes(DeviceKind::kCpu));
  EXPECT_LT(expanded_slice_rows(format, c.rows, c.cols, bytes), c.rows);
  std::vector<std::byte> scratch(static_cast<std::size_t>(bytes));
  ThreadPool pool(2);
  Stream stream(pool);
  Random random(4);
  const GuardedMatrix x = GuardedMatrix::random(2, c.cols, 0, random);
  GuardedMatrix y(2, c.rows, 0), expected(2, c.rows, 0);
  linear({.x = x.view(), .weight = weight.view(), .y = y.view(), .scratch = scratch}, stream);
  linear({.x = x.view(), .weight = weight.dense(), .y = expected.view()}, stream);
  y.expect_same_bits(expected);
}

TEST(LinearEncodedErrors, NamesAWrongSizeAndMissingScratch) {
  const Encoded weight({"", 130, 70, Mask::kRandom, 0.8}, {Encoding::kTiledCsl, DType::kF16});
  ThreadPool pool(1);
  Stream stream(pool);
  Random random(5);
  const GuardedMatrix x = GuardedMatrix::random(1, 70, 0, random);
  GuardedMatrix y(1, 130, 0);
  LinearArgs args{.x = x.view(), .weight = weight.view(), .y = y.view()};
  EXPECT_EQ(error_of([&] { linear(args, stream); }).code(), Code::kInternal) << "no scratch";
  args.weight.data = args.weight.data.first(10);
  const Error error = error_of([&] { linear(args, stream); });
  EXPECT_EQ(error.code(), Code::kUnsupported);
  EXPECT_THAT(error.what(), HasSubstr("weight [130, 70] has 10 bytes, must have"));
  args.weight = weight.view();
  EXPECT_THAT(why_unsupported(args, DeviceKind::kCuda), ::testing::Not(::testing::IsEmpty())) << "x is f32";
}

}  // namespace
}  // namespace sluice::kernels
