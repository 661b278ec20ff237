// Expansion on the device, for every format: bit by bit what the codec gives on the host; and products over
// encoded weights.
#include <algorithm>

#include <gmock/gmock.h>

#include "core/units.h"
#include "kernels/ops/expand.h"
#include "kernels/ops/linear.h"
#include "tests/kernels/cuda/device_operands.h"
#include "tests/kernels/format_support.h"
#include "tests/kernels/pairs24_entries.h"

namespace sluice::kernels {
namespace {

using namespace testing;

std::vector<WeightFormat> encoded_formats() {
  std::vector<WeightFormat> formats;
  for (const Encoding encoding : all_encodings()) {
    if (encoding == Encoding::kDense) continue;
    for (const DType dtype : {DType::kF16, DType::kBF16}) formats.push_back({encoding, dtype});
  }
  return formats;
}

/// Any finite values: subnormal ones, and the largest.
std::vector<std::uint16_t> any_values(std::int64_t count, DType dtype) {
  std::mt19937 random(11);
  const std::uint16_t exponent = dtype == DType::kF16 ? 0x7C00U : 0x7F80U;
  std::vector<std::uint16_t> values;
  while (std::ssize(values) < count) {
    const auto bits = static_cast<std::uint16_t>(random());
    if ((bits & exponent) != exponent) values.push_back(random() % 3 == 0 ? 0 : bits);
  }
  return values;
}

class ExpandOnDevice : public CudaTest {
 protected:
  DeviceMemory put(const StoredMatrix& matrix) { return cuda->put(matrix.bytes); }
  static WeightView on_device(const StoredMatrix& matrix, const DeviceMemory& memory) {
    return {matrix.format, std::span<const std::byte>(memory.bytes).first(matrix.bytes.size()),
            matrix.tensor.rows, matrix.tensor.cols};
  }

  /// Rows on the device, and nothing beside them.
  void expect_expanded(const StoredMatrix& matrix, const WeightView& weight, std::int64_t first,
                       std::int64_t rows) {
    constexpr std::size_t kGuards = 64;
    const std::vector<std::uint16_t> expected = matrix.expand(first, rows);
    const DeviceArray<std::uint16_t> memory(
        *cuda, std::vector<std::uint16_t>(expected.size() + 2 * kGuards, 0x7FAD));
    expand({.weight = weight,
            .first_row = first,
            .num_rows = rows,
            .out = std::as_writable_bytes(memory.get().subspan(kGuards, expected.size()))},
           stream());
    const std::vector<std::uint16_t> all = memory.fetch();
    const auto found = std::span(all).subspan(kGuards, expected.size());
    const auto at = std::ranges::mismatch(expected, found).in1 - expected.begin();
    ASSERT_TRUE(std::ranges::equal(expected, found))
        << "rows " << first << " to " << first + rows << ", row " << at / weight.cols << " column "
        << at % weight.cols << ": " << found[static_cast<std::size_t>(at)] << " should be "
        << expected[static_cast<std::size_t>(at)];
    for (std::size_t i = 0; i < kGuards; ++i) {
      ASSERT_EQ(all[i], 0x7FAD);
      ASSERT_EQ(all[all.size() - 1 - i], 0x7FAD);
    }
  }
  /// As a whole, and in three parts.
  void expect_all_parts(const StoredMatrix& matrix) {
    const DeviceMemory memory = put(matrix);
    const WeightView weight = on_device(matrix, memory);
    expect_expanded(matrix, weight, 0, weight.rows);
    const std::int64_t granule = codec_of(matrix.format.encoding).row_granule(weight.cols);
    const std::int64_t part = align_up(div_up(weight.rows, 3), granule);
    for (std::int64_t first = 0; first < weight.rows; first += part)
      expect_expanded(matrix, weight, first, std::min(part, weight.rows - first));
  }
};

class ExpandCuda : public ExpandOnDevice, public ::testing::WithParamInterface<WeightFormat> {};

TEST_P(ExpandCuda, GivesTheBitsOfTheCodec) {
  for (const WeightCase& c : weight_cases()) {
    SCOPED_TRACE(c.name);
    expect_all_parts(StoredMatrix(GetParam(), c.rows, c.cols, make_weights(c, GetParam().dtype)));
  }
}

TEST_P(ExpandCuda, GivesTheBitsOfTheCodecForAnyFiniteValues) {
  for (const auto& [rows, cols] :
       {std::pair<std::int64_t, std::int64_t>{300, 200}, {128, 1024}, {1, 5000}, {520, 8}}) {
    expect_all_parts(StoredMatrix(GetParam(), rows, cols, any_values(rows * cols, GetParam().dtype)));
  }
}

class ExpandPairs24Cuda : public ExpandOnDevice {};

TEST_F(ExpandPairs24Cuda, ReadsUpTo32Entries) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const ManyEntries many(dtype);
    expect_many_entries(many.view());
    StoredMatrix matrix(many.format, many.kRows, many.kCols, many.values);
    ASSERT_NE(matrix.bytes, many.stored);
    matrix.bytes = many.stored;
    expect_all_parts(matrix);
  }
}

// In several slices and in one, each twice in a row.
TEST_P(ExpandCuda, AProductIsThatOfTheExpandedMatrix) {
  constexpr std::int64_t kIn = 9000;
  const WeightCase wide{"wide", 1500, kIn, Mask::kRandom, 0.9};
  const WeightCase small{"small", 200, kIn, Mask::kRandom, 0.5};
  const DType dtype = GetParam().dtype;
  constexpr std::int64_t kSliceBytes = 10_MiB;
  EXPECT_LE(3 * expanded_slice_rows(GetParam(), wide.rows, kIn, kSliceBytes), wide.rows + 256);
  EXPECT_EQ(expanded_slice_rows(GetParam(), small.rows, kIn, kSliceBytes), small.rows);
  EXPECT_GT(expansion_bytes(GetParam(), wide.rows, kIn, DeviceKind::kCuda), 2 * kSliceBytes);
  const DeviceMemory scratch = cuda->device().allocate(2 * kSliceBytes);
  Random random(3);
  const WeightFormat dense{Encoding::kDense, dtype};
  const DenseWeight bias(dense, 1, wide.rows, random);
  const DeviceWeight device_bias(*cuda, bias);
  std::int64_t step = 0;
  for (const WeightCase& c : {wide, small}) {
    const StoredMatrix matrix(GetParam(), c.rows, c.cols, make_weights(c, dtype));
    const DeviceMemory memory = put(matrix);
    const std::vector<std::uint16_t> expanded = matrix.expand();
    for (const std::int64_t rows : {1, 3}) {
      SCOPED_TRACE(fmt::format("{} with {} rows", c.name, rows));
      DeviceMatrix x(*cuda, dtype, GuardedMatrix::random(rows, kIn, 8, random));
      const auto args = [&](const ConstMatrixView& from, const WeightView& weight,
                            const ConstVectorView& biases, const MatrixView& to) {
        return LinearArgs{.x = from,
                          .weight = weight,
                          .bias = {biases.data, biases.dtype, c.rows},
                          .epilogue = Epilogue::kRelu,
                          .y = to,
                          .scratch = scratch.bytes};
      };
      DeviceMatrix y(*cuda, dtype, rows, c.rows, 8);
      DeviceMatrix again(*cuda, dtype, rows, c.rows, 8);
      stream().begin_step(++step);
      for (DeviceMatrix* to : {&y, &again})
        linear(args(x.const_view(), on_device(matrix, memory), device_bias.vector(), to->view()), stream());
      stream().end_step(step);
      stream().await_step(step);
      y.fetch();
      again.fetch();
      y.expect_same_bits(again);
      // As for dense weights: four times the reference's bound.
      y.expect_near(
          linear_ref(args(x.const_host_view(), {dense, std::as_bytes(std::span(expanded)), c.rows, kIn},
                          bias.vector(), y.host_view())),
          [](const Expected& e, std::size_t) { return 4 * e.tolerance; });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, ExpandCuda, ::testing::ValuesIn(encoded_formats()),
                         [](const auto& tested) { return weight_format_name(tested.param); });

}  // namespace
}  // namespace sluice::kernels
