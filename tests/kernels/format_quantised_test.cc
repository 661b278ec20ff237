#include <cmath>
#include <limits>
#include <random>

#include <gtest/gtest.h>

#include "kernels/device/cpu/simd.h"
#include "kernels/format/quantised/quantised.h"
#include "kernels/format/quantised/scale.h"
#include "tests/kernels/format_support.h"

namespace sluice::kernels {
namespace {

using testing::expect_each_refused;
using testing::make_weights;
using testing::StoredMatrix;
using testing::to_bits;
using testing::to_floats;
using testing::weight_cases;
using testing::WeightCase;

constexpr Encoding kEncodings[] = {Encoding::kInt8,     Encoding::kInt8G128,   Encoding::kInt4G64,
                                   Encoding::kInt4G128, Encoding::kInt4SymG64, Encoding::kInt4SymG128};

class QuantisedFormat : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { force_simd_target(GetParam()); }
  void TearDown() override { force_simd_target(""); }
};

/// Every decoded value is within half a scale, and zeros of symmetric codes are zeros.
void expect_close(const StoredMatrix& matrix, const std::vector<std::uint16_t>& values) {
  const DType dtype = matrix.format.dtype;
  const QuantLayout layout = quant_layout(matrix.format.encoding, matrix.tensor.cols);
  const std::vector<float> source = to_floats(values, dtype);
  const std::vector<float> decoded = to_floats(matrix.expand(), dtype);
  const double unit = dtype == DType::kF16 ? 0x1p-11 : 0x1p-8;  // relative rounding of the type
  const double tiny = dtype == DType::kF16 ? 0x1p-24 : 0x1p-133;
  const double limit = layout.has_minimum ? 15 : layout.bits == 8 ? 127 : 7;
  for (std::size_t row = 0; row < source.size(); row += static_cast<std::size_t>(layout.cols)) {
    for (std::int64_t col = 0; col < layout.cols; col += layout.group_cols) {
      const auto first = row + static_cast<std::size_t>(col);
      const auto end = first + static_cast<std::size_t>(std::min(layout.group_cols, layout.cols - col));
      double low = layout.has_minimum ? source[first] : 0.0;
      double high = low;
      for (std::size_t i = first; i < end; ++i) {
        const double value = layout.has_minimum ? source[i] : std::fabs(source[i]);
        low = std::min(low, value);
        high = std::max(high, value);
      }
      // The scale is range / limit rounded to the type, subnormal ones up. Step 3 of FORMAT.md (near the end
      // of the range) may cost twice the rounding, at the limit; round16 of the result adds its own, fp32 a
      // little.
      const double scale = (high - low) / limit * (1 + unit) + (high == low ? 0.0 : tiny);
      const double largest = std::max(std::fabs(low), std::fabs(high));
      const double bound = scale / 2 + largest * unit * 1.01 + tiny / 2;
      for (std::size_t i = first; i < end; ++i) {
        ASSERT_LE(std::fabs(static_cast<double>(decoded[i]) - source[i]), bound) << "element " << i;
        ASSERT_FALSE(decoded[i] == 0.0F && std::signbit(decoded[i]));
        if (source[i] == 0.0F && !layout.has_minimum) {
          ASSERT_EQ(decoded[i], 0.0F) << "element " << i;
        }
        if (low == high) {
          ASSERT_EQ(decoded[i], source[i]) << "element " << i;
        }
      }
    }
  }
}

TEST_P(QuantisedFormat, GivesTheGoldenBytes) { testing::expect_golden_bytes("quantised.txt"); }

TEST_P(QuantisedFormat, IsWithinHalfAScale) {
  for (const WeightCase& c : weight_cases()) {
    for (const Encoding encoding : kEncodings) {
      for (const DType dtype : {DType::kF16, DType::kBF16}) {
        SCOPED_TRACE(fmt::format("{} {}", c.name, weight_format_name({encoding, dtype})));
        const std::vector<std::uint16_t> values = make_weights(c, dtype);
        expect_close(StoredMatrix({encoding, dtype}, c.rows, c.cols, values), values);
      }
    }
  }
}

TEST_P(QuantisedFormat, HoldsTheEndsOfTheRange) {
  for (const Encoding encoding : kEncodings) {
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      SCOPED_TRACE(weight_format_name({encoding, dtype}));
      const float largest = dtype == DType::kF16 ? 65504.0F : 0x1.FEp127F;
      const float tiny = dtype == DType::kF16 ? 0x1p-24F : 0x1p-133F;
      for (const std::vector<float>& row : std::vector<std::vector<float>>{
               {largest, -largest, largest / 2, 1.0F},
               {largest, largest * 0.75F, largest * 0.875F, largest},
               {-largest, -largest, -largest, -largest / 4},
               {largest, largest, largest, largest},
               {tiny, 2 * tiny, -tiny, 0.0F},
               {tiny, tiny, tiny, tiny},
               {100 * tiny, 190 * tiny, -191 * tiny, 23 * tiny},
               {largest, tiny, -tiny, 0.0F},
               {-0.0F, -0.0F, -0.0F, -0.0F},
               {-0.0F, -1.0F, -1.0F, -1.0F},
           }) {
        const std::vector<std::uint16_t> values = to_bits(row, dtype);
        const StoredMatrix matrix({encoding, dtype}, 1, 4, values);
        EXPECT_NO_THROW(matrix.check());
        for (const std::uint16_t bits : matrix.expand()) EXPECT_TRUE(is_finite_value(bits, dtype));
        // Of bf16, step 3 can cost as much as half a scale of 8 bits: FORMAT.md says so.
        if (dtype == DType::kF16 || row[0] != largest || element_bits(encoding) == 4)
          expect_close(matrix, values);
      }
    }
  }
}

TEST_P(QuantisedFormat, DecodesWithOneFmaAndOneRounding) {
  std::mt19937 random(1);
  for (const Encoding encoding : kEncodings) {
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      // Groups of magnitudes from subnormal to the end of the range.
      std::vector<std::uint16_t> values(std::size_t{40} * 128);
      for (std::size_t i = 0; i < values.size(); ++i) {
        const auto top = static_cast<std::uint32_t>(i / 64 * 0x7FFF / 80);
        do {
          values[i] = static_cast<std::uint16_t>((random() % (top + 1)) | (random() % 2 << 15));
        } while (!is_finite_value(values[i], dtype));
      }
      const StoredMatrix matrix({encoding, dtype}, 40, 128, values);
      matrix.check();
      const QuantLayout layout = quant_layout(encoding, 128);
      const std::vector<std::uint16_t> decoded = matrix.expand();
      for (std::size_t i = 0; i < decoded.size(); ++i) {
        const std::size_t row = i / 128;
        const std::size_t group = i % 128 / static_cast<std::size_t>(layout.group_cols);
        const auto stored_16 = [&](std::size_t at) {
          std::uint16_t bits = 0;
          std::memcpy(&bits, matrix.bytes.data() + at, sizeof(bits));
          return value_of(bits, dtype);
        };
        const std::size_t params = 40 * static_cast<std::size_t>(layout.row_bytes) +
                                   group * static_cast<std::size_t>(layout.group_bytes(40)) +
                                   row * static_cast<std::size_t>(layout.param_bytes);
        // Eight words of 16 bits, each with every eighth column of 16 (8 bits) or 32 (4 bits).
        const auto bits = static_cast<std::size_t>(layout.bits);
        const std::size_t word = i % 128 / (128 / bits) * 8 + i % 8;
        std::uint16_t stored = 0;
        std::memcpy(&stored,
                    matrix.bytes.data() + row * static_cast<std::size_t>(layout.row_bytes) + word * 2,
                    sizeof(stored));
        const int code = stored >> i % (128 / bits) / 8 * bits & ((1 << bits) - 1);
        const float expected = std::fma(static_cast<float>(code - layout.zero_code), stored_16(params),
                                        layout.has_minimum ? stored_16(params + 2) : 0.0F);
        ASSERT_EQ(decoded[i], bits_of(expected, dtype)) << weight_format_name({encoding, dtype}) << " " << i;
      }
    }
  }
}

TEST_P(QuantisedFormat, GridOfAScaleIsLossless) {
  for (const Encoding encoding : kEncodings) {
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      SCOPED_TRACE(weight_format_name({encoding, dtype}));
      const QuantLayout layout = quant_layout(encoding, 300);
      const int low = layout.has_minimum ? -3 : layout.bits == 8 ? -127 : -7;
      const int high = layout.has_minimum ? 12 : -low;
      // q * 2^k with both ends of the range in every group: the scale is 2^k, and every product is exact.
      std::vector<float> grid;
      for (int row = 0; row < 131; ++row) {
        for (int col = 0; col < 300; ++col) {
          const int q = col % 64 == 3   ? low
                        : col % 64 == 7 ? high
                                        : low + (col * 37 + row) % (high - low + 1);
          grid.push_back(std::ldexp(static_cast<float>(q), -(row % 5)));
        }
      }
      const std::vector<std::uint16_t> values = to_bits(grid, dtype);
      const StoredMatrix matrix({encoding, dtype}, 131, 300, values);
      EXPECT_EQ(matrix.expand(), values);
      EXPECT_EQ(StoredMatrix({encoding, dtype}, 131, 300, matrix.expand()).bytes, matrix.bytes);
    }
  }
}

TEST_P(QuantisedFormat, RoundsTiesToEven) {
  // Scale 1: 0.5, 1.5 and 2.5 are 0, 2 and 2 of symmetric codes; -3 + 1.5 and -3 + 2.5 are u = 2.
  const std::vector<std::uint16_t> around_zero = to_bits({7.0F, 0.5F, 1.5F, 2.5F, -0.5F, -1.5F}, DType::kF16);
  EXPECT_EQ(StoredMatrix({Encoding::kInt4SymG64, DType::kF16}, 1, 6, around_zero).expand(),
            to_bits({7.0F, 0.0F, 2.0F, 2.0F, 0.0F, -2.0F}, DType::kF16));
  const std::vector<std::uint16_t> from_minimum = to_bits({-3.0F, 12.0F, -1.5F, -0.5F, -2.5F}, DType::kF16);
  EXPECT_EQ(StoredMatrix({Encoding::kInt4G64, DType::kF16}, 1, 5, from_minimum).expand(),
            to_bits({-3.0F, 12.0F, -1.0F, -1.0F, -3.0F}, DType::kF16));
}

INSTANTIATE_TEST_SUITE_P(Targets, QuantisedFormat, ::testing::ValuesIn(simd_targets()));

/// 130 rows of 70 columns, so the second block has 2 rows. The last chunk of a row has 6 columns, the lowest
/// bits of its first 6 words.
StoredMatrix two_blocks(Encoding encoding, DType dtype) {
  std::vector<float> values(std::size_t{130} * 70);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 19) - 9.0F;
  std::fill_n(values.begin() + 70, 70, encoding == Encoding::kInt4G64 ? 0.25F : 0.0F);  // row 1: scale 0
  return {{encoding, dtype}, 130, 70, to_bits(values, dtype)};
}

TEST(QuantisedCheck, RefusesEachDamageWithItsPlace) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const auto bits = [dtype](float x) { return unsigned{to_bits({x}, dtype)[0]}; };
    const float huge = dtype == DType::kF16 ? 60000.0F : 3e38F;
    const StoredMatrix int8 = two_blocks(Encoding::kInt8, dtype);
    constexpr std::int64_t kScales8 = 128 * 80;  // row_bytes 80
    constexpr std::int64_t kBlock1 = kScales8 + 256;
    expect_each_refused(
        int8,
        {
            {" bytes instead of ", [](StoredMatrix& m) { m.bytes.pop_back(); }},
            {"block 0, row 0: column 0 has code 0, which scale", [](StoredMatrix& m) { m.set_8(0, 0); }},
            {"block 0, row 1: column 69 has code 129, which scale 0 never has",
             [](StoredMatrix& m) { m.set_8(80 + 64 + 5 * 2, 129); }},
            {"block 1, row 129: its padding behind 70 columns holds code 0 instead of 128",
             [](StoredMatrix& m) { m.set_8(kBlock1 + 80 + 64 + 6 * 2, 0); }},
            {"block 0, row 2: group 0: its scale inf is not finite",
             [&](StoredMatrix& m) { m.set_16(kScales8 + 4, bits(INFINITY)); }},
            {"is not finite", [&](StoredMatrix& m) { m.set_16(kScales8 + 4, bits(NAN)); }},
            {"block 1, row 128: group 0: its scale -1 is negative",
             [&](StoredMatrix& m) { m.set_16(kBlock1 + 160, bits(-1.0F)); }},
            {"its scale -0 is negative", [&](StoredMatrix& m) { m.set_16(kScales8 + 2, 0x8000); }},
            {"decodes to values beyond its type's range",
             [&](StoredMatrix& m) { m.set_16(kScales8, bits(huge)); }},
            {"block 1: the 12 bytes behind the parameters of group 0 are not zero",
             [](StoredMatrix& m) { m.set_8(kBlock1 + 164, 1); }},
        });

    const StoredMatrix symmetric = two_blocks(Encoding::kInt4SymG64, dtype);
    expect_each_refused(
        symmetric, {
                       {"block 0, row 0: column 8 has code 0", [](StoredMatrix& m) { m.set_8(0, 0x01); }},
                       {"block 0, row 0: its padding behind 70 columns holds code 1 instead of 8",
                        [](StoredMatrix& m) { m.set_8(47, 0x18); }},
                   });

    const StoredMatrix with_minimum = two_blocks(Encoding::kInt4G64, dtype);
    constexpr std::int64_t kParams = 128 * 48, kGroup1 = kParams + 128 * 4;
    expect_each_refused(
        with_minimum,
        {
            {"row 0: group 1: its minimum is inf",
             [&](StoredMatrix& m) { m.set_16(kGroup1 + 2, bits(INFINITY)); }},
            {"row 1: group 0: its minimum is -0", [](StoredMatrix& m) { m.set_16(kParams + 4 + 2, 0x8000); }},
            {"its minimum is nan", [&](StoredMatrix& m) { m.set_16(kParams + 2, bits(NAN)); }},
            {"group 0: its scale -1 is negative", [&](StoredMatrix& m) { m.set_16(kParams, bits(-1)); }},
            {"decodes to values beyond its type's range",
             [&](StoredMatrix& m) { m.set_16(kParams + 2, bits(huge)), m.set_16(kParams, bits(huge / 15)); }},
            {"row 1: column 2 has code 3, which scale 0 never has",
             [](StoredMatrix& m) { m.set_8(48 + 2 * 2, 0x03); }},
            {"holds code 15 instead of 0", [](StoredMatrix& m) { m.set_8(40, 0xF0); }},
            {"block 1: the 8 bytes behind the parameters of group 1 are not zero",
             [](StoredMatrix& m) { m.set_8(kGroup1 + 128 * 4 + 2 * 48 + 16 + 15, 1); }},
        });
  }
}

}  // namespace
}  // namespace sluice::kernels
