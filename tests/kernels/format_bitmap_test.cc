#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "core/units.h"
#include "kernels/device/cpu/simd.h"
#include "kernels/format/bitmap/bitmap.h"
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

constexpr std::int64_t kScales = 512;          // of the first chunk
constexpr std::int64_t kCodes = kScales + 64;  // its codes, if it has scales

class BitmapFormat : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { force_simd_target(GetParam()); }
  void TearDown() override { force_simd_target(""); }
};

TEST_P(BitmapFormat, GivesTheGoldenBytes) { testing::expect_golden_bytes("bitmap.txt"); }

TEST_P(BitmapFormat, QuantisedNonzerosAreWithinHalfAScale) {
  for (const WeightCase& c : weight_cases()) {
    for (const Encoding encoding : {Encoding::kBitmapInt8, Encoding::kBitmapInt4}) {
      for (const DType dtype : {DType::kF16, DType::kBF16}) {
        SCOPED_TRACE(fmt::format("{} {}", c.name, weight_format_name({encoding, dtype})));
        const std::vector<std::uint16_t> values = make_weights(c, dtype);
        const std::vector<float> source = to_floats(values, dtype);
        const StoredMatrix matrix({encoding, dtype}, c.rows, c.cols, values);
        const std::vector<float> decoded = to_floats(matrix.expand(), dtype);
        const float limit = encoding == Encoding::kBitmapInt8 ? 127.0F : 7.0F;
        const float unit = dtype == DType::kF16 ? 0x1p-11F : 0x1p-8F;  // relative rounding of the type
        for (std::int64_t row = 0; row < c.rows; ++row) {
          for (std::int64_t col = 0; col < c.cols; col += kBitmapSegmentCols) {
            const auto first = static_cast<std::size_t>(row * c.cols + col);
            const auto end = first + static_cast<std::size_t>(std::min(kBitmapSegmentCols, c.cols - col));
            float max_abs = 0.0F;
            for (std::size_t i = first; i < end; ++i) max_abs = std::max(max_abs, std::fabs(source[i]));
            // Half of max / limit rounded to the type, and the rounding of a decoded value up to max.
            const float bound = max_abs / limit / 2 * (1 + unit) + max_abs * (1 + unit) * unit;
            for (std::size_t i = first; i < end; ++i) {
              ASSERT_LE(std::fabs(decoded[i] - source[i]), bound) << "element " << i;
              if (source[i] == 0.0F) {
                ASSERT_EQ(std::bit_cast<std::uint32_t>(decoded[i]), 0U) << "element " << i;
              }
            }
          }
        }
      }
    }
  }
}

TEST_P(BitmapFormat, GridOfAScaleIsLossless) {
  for (const Encoding encoding : {Encoding::kBitmapInt8, Encoding::kBitmapInt4}) {
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      // q * 2^k with both ends of the range in every segment: the scale is 2^k, and every product is exact.
      const int limit = encoding == Encoding::kBitmapInt8 ? 127 : 7;
      std::vector<float> grid;
      for (int row = 0; row < 5; ++row) {
        for (int col = 0; col < 300; ++col) {
          const int q = col % 128 == 3   ? limit
                        : col % 128 == 7 ? -limit
                                         : (col * 37 + row) % (2 * limit + 1) - limit;
          grid.push_back(std::ldexp(static_cast<float>(q), -row));
        }
      }
      const std::vector<std::uint16_t> values = to_bits(grid, dtype);
      const StoredMatrix matrix({encoding, dtype}, 5, 300, values);
      EXPECT_EQ(matrix.expand(), values);
      EXPECT_EQ(StoredMatrix({encoding, dtype}, 5, 300, matrix.expand()).bytes, matrix.bytes);
    }
  }
}

TEST_P(BitmapFormat, ANonzeroThatDecodesToZeroKeepsItsBit) {
  const StoredMatrix matrix({Encoding::kBitmapInt4, DType::kF16}, 1, 3,
                            to_bits({1.0F, 0.01F, 0.0F}, DType::kF16));
  EXPECT_EQ(matrix.bytes[0], std::byte{0b011});
  EXPECT_EQ(matrix.bytes[kCodes], std::byte{0x8F});
  EXPECT_EQ(matrix.expand()[1], 0);
  EXPECT_NO_THROW(matrix.check());
}

TEST_P(BitmapFormat, HoldsTheEndsOfTheRange) {
  for (const Encoding encoding : {Encoding::kBitmapInt8, Encoding::kBitmapInt4}) {
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      SCOPED_TRACE(weight_format_name({encoding, dtype}));
      const auto largest = static_cast<std::uint16_t>(dtype == DType::kF16 ? 0x7BFF : 0x7F7F);
      const std::vector<std::uint16_t> values = {largest, static_cast<std::uint16_t>(largest | 0x8000U), 1};
      const StoredMatrix big({encoding, dtype}, 1, 3, values);
      EXPECT_NO_THROW(big.check());
      const std::vector<float> decoded = to_floats(big.expand(), dtype);
      EXPECT_NEAR(decoded[0] / to_floats(values, dtype)[0], 1.0F, 0.01F);
      EXPECT_EQ(decoded[1], -decoded[0]);
      // Subnormals: a scale of 1 holds what is not above the limit, and coarser ones what is.
      for (const std::uint16_t tiny :
           std::initializer_list<std::uint16_t>{1, 2, 7, 90, 127, 128, 190, 191, 900}) {
        const StoredMatrix small({encoding, dtype}, 1, 2, {tiny, static_cast<std::uint16_t>(tiny | 0x8000U)});
        EXPECT_NO_THROW(small.check());
        const int limit = encoding == Encoding::kBitmapInt8 ? 127 : 7;
        const std::vector<std::uint16_t> back = small.expand();
        const int scale = std::max(1, (tiny + limit - 1) / limit);
        EXPECT_LE(std::abs(back[0] - tiny), tiny > limit ? scale / 2 : 0) << tiny;
        EXPECT_EQ(back[1], back[0] | 0x8000U);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, BitmapFormat, ::testing::ValuesIn(simd_targets()));

TEST(BitmapCheck, RefusesEachDamageWithItsPlace) {
  // 40 rows of 130 columns: 80 segments, every second one of 2 columns; chunks of 32, 32 and 16 segments.
  const WeightCase c{"", 40, 130, testing::Mask::kRandom, 0.5};
  const StoredMatrix good({Encoding::kBitmap, DType::kF16}, c.rows, c.cols, make_weights(c, DType::kF16));
  const auto size = static_cast<std::int64_t>(good.bytes.size());
  const std::int64_t table = size - 16;
  expect_each_refused(
      good,
      {
          {"tile 0 starts at byte 16, not at 0", [&](StoredMatrix& m) { m.set_32(table, 1); }},
          {"tile 1 of 3 covers bytes", [&](StoredMatrix& m) { m.set_32(table + 8, 1); }},
          {"its 3 tiles end at byte", [&](StoredMatrix& m) { m.set_32(table + 12, 330); }},
          {"chunk 0 of 3: 16 bytes, less than the 512", [&](StoredMatrix& m) { m.set_32(table + 4, 1); }},
          {"chunk 0 of 3: segment 1 has bits behind its 2 columns",
           [&](StoredMatrix& m) { m.set_8(16, 0x04); }},
          {" bytes, but ", [](StoredMatrix& m) { std::fill_n(m.bytes.begin(), 16, std::byte{0xFF}); }},
          {"chunk 0 of 3: nonzero 0 of ", [&](StoredMatrix& m) { m.set_16(512, 0); }},
          {" is -0", [&](StoredMatrix& m) { m.set_16(512, 0x8000); }},
          {" is inf", [&](StoredMatrix& m) { m.set_16(512, 0x7C00); }},
          {" is nan", [&](StoredMatrix& m) { m.set_16(514, 0x7E00); }},
      });
  const StoredMatrix one({Encoding::kBitmap, DType::kBF16}, 2, 130,
                         to_bits(std::vector<float>(260, 0.5F), DType::kBF16));
  EXPECT_NO_THROW(one.check());
  expect_each_refused(
      one,
      {
          {"chunk 0 of 1: segment 4 has bits behind its 0 columns", [&](StoredMatrix& m) { m.set_8(64, 1); }},
          {"chunk 0 of 1: 1040 bytes, but 1024 with 252 nonzeros", [&](StoredMatrix& m) { m.set_8(0, 0); }},
          {"its padding behind 260 nonzeros", [&](StoredMatrix& m) { m.set_8(512 + 521, 1); }},
          {"its padding behind 259 nonzeros", [&](StoredMatrix& m) { m.set_8(0, 0xFE); }},
      });
}

TEST(BitmapCheck, RefusesEachDamageOfQuantisedNonzeros) {
  std::vector<float> values(2 * 130, 0.0F);
  values[0] = 1.0F;
  values[3] = -1.0F;
  values[128] = 0.5F;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const auto bits = [dtype](float x) { return unsigned{to_bits({x}, dtype)[0]}; };
    const float huge = dtype == DType::kF16 ? 60000.0F : 3e38F;
    for (const Encoding encoding : {Encoding::kBitmapInt8, Encoding::kBitmapInt4}) {
      const StoredMatrix good({encoding, dtype}, 2, 130, to_bits(values, dtype));
      const bool is_int8 = encoding == Encoding::kBitmapInt8;
      expect_each_refused(
          good,
          {
              {"segment 0: its scale is 0, but it holds nonzeros",
               [&](StoredMatrix& m) { m.set_16(kScales, 0); }},
              {"segment 2: its scale is 1, but it holds none",
               [&](StoredMatrix& m) { m.set_16(kScales + 4, bits(1.0F)); }},
              {"segment 31: its scale is 1, but it holds none",
               [&](StoredMatrix& m) { m.set_16(kScales + 62, bits(1.0F)); }},
              {"segment 1: its scale inf is not finite",
               [&](StoredMatrix& m) { m.set_16(kScales + 2, bits(INFINITY)); }},
              {"is not finite", [&](StoredMatrix& m) { m.set_16(kScales + 2, bits(nan)); }},
              {"segment 0: its scale -0.5 is negative",
               [&](StoredMatrix& m) { m.set_16(kScales, bits(-0.5F)); }},
              {"segment 2: its scale -0 is negative",
               [&](StoredMatrix& m) { m.set_16(kScales + 4, 0x8000); }},
              {"decodes to values beyond its type's range",
               [&](StoredMatrix& m) { m.set_16(kScales, bits(huge)); }},
              {"chunk 0 of 1: nonzero 1 of 3 has code 0",
               [&](StoredMatrix& m) { m.set_8(is_int8 ? kCodes + 1 : kCodes, is_int8 ? 0x00 : 0x0F); }},
              {"its padding behind 3 nonzeros is not zero",
               [&](StoredMatrix& m) { m.set_8(kCodes + 15, 1); }},
              {"its padding behind 3 nonzeros is not zero",
               [&](StoredMatrix& m) { m.set_8(is_int8 ? kCodes + 3 : kCodes + 1, is_int8 ? 1 : 0x1F); }},
          });
    }
  }
}

TEST(BitmapFormat, ChunksAndRowsBeginTogetherAtItsGranule) {
  EXPECT_EQ(bitmap_row_granule(1), 32);
  EXPECT_EQ(bitmap_row_granule(128), 32);
  EXPECT_EQ(bitmap_row_granule(129), 16);
  EXPECT_EQ(bitmap_row_granule(3 * 128), 32);
  EXPECT_EQ(bitmap_row_granule(4096), 1);
  EXPECT_EQ(bitmap_row_granule(9216), 4);
}

}  // namespace
}  // namespace sluice::kernels
