#include "core/format.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "core/error.h"

namespace sluice {
namespace {

TEST(WeightFormat, NamesAreReadBack) {
  for (const Encoding encoding : all_encodings()) {
    EXPECT_EQ(parse_encoding(encoding_name(encoding)), encoding);
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      const WeightFormat format{encoding, dtype};
      EXPECT_EQ(parse_weight_format(weight_format_name(format)), format) << weight_format_name(format);
    }
  }
  EXPECT_EQ(all_encodings().size(), 13U);
  EXPECT_EQ(weight_format_name({Encoding::kInt4SymG64, DType::kBF16}), "int4_sym_g64_bf16");
  for (const char* name : {"", "dense", "dense_f32", "int4_g64_", "bitmap_int8", "Dense_f16", "dense_f16 "}) {
    EXPECT_EQ(parse_weight_format(name), std::nullopt) << name;
  }
  EXPECT_EQ(parse_encoding("dense_f16"), std::nullopt);
}

TEST(WeightFormat, SizesOfQuantisedMatricesFollowFromTheShape) {
  const auto bytes = [](Encoding encoding, std::int64_t rows, std::int64_t cols) {
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      const ByteRange range = weight_byte_range({encoding, dtype}, rows, cols);
      EXPECT_EQ(range.min, range.max);
      EXPECT_EQ(range.min, weight_bytes({encoding, dtype}, rows, cols));
    }
    return weight_bytes({encoding, DType::kF16}, rows, cols);
  };
  EXPECT_EQ(bytes(Encoding::kDense, 3, 5), 30);
  // 130 rows are blocks of 128 and 2. A row of 200 int8 codes has 208 bytes, of 4-bit codes 112; it has 2
  // groups of 128 columns and 4 of 64.
  EXPECT_EQ(bytes(Encoding::kInt8, 130, 200), 130 * 208 + 256 + 16);
  EXPECT_EQ(bytes(Encoding::kInt8G128, 130, 200), 130 * 208 + 512 + 2 * 16);
  EXPECT_EQ(bytes(Encoding::kInt4G64, 130, 200), 130 * 112 + 128 * 16 + 4 * 16);
  EXPECT_EQ(bytes(Encoding::kInt4G128, 130, 200), 130 * 112 + 128 * 8 + 2 * 16);
  EXPECT_EQ(bytes(Encoding::kInt4SymG64, 130, 200), 130 * 112 + 128 * 8 + 4 * 16);
  EXPECT_EQ(bytes(Encoding::kInt4SymG128, 130, 200), 130 * 112 + 128 * 4 + 2 * 16);
  EXPECT_EQ(bytes(Encoding::kInt4G64, 1, 1), 16 + 16);
  EXPECT_EQ(bytes(Encoding::kInt8, 4096, 4096), 4096 * 4096 + 2 * 4096);
}

TEST(WeightFormat, SizesOfBitmapsGoFromNoNonzeroToNoZero) {
  const auto range = [](Encoding encoding, std::int64_t rows, std::int64_t cols) {
    return weight_byte_range({encoding, DType::kF16}, rows, cols);
  };
  // 33 rows of 3 columns: chunks of 32 segments and of 1, 512 bytes of masks each, and a table of 3 numbers.
  EXPECT_EQ(num_tiles(Encoding::kBitmap, 33, 3), 2);
  EXPECT_EQ(range(Encoding::kBitmap, 33, 3).min, 2 * 512 + 16);
  EXPECT_EQ(range(Encoding::kBitmap, 33, 3).max, 2 * 512 + 192 + 16 + 16);
  EXPECT_EQ(range(Encoding::kBitmapInt8, 33, 3).min, 2 * 576 + 16);
  EXPECT_EQ(range(Encoding::kBitmapInt8, 33, 3).max, 2 * 576 + 96 + 16 + 16);
  EXPECT_EQ(range(Encoding::kBitmapInt4, 33, 3).max, 2 * 576 + 48 + 16 + 16);
  // 3 segments a row, the last one of a column: 11 rows are 33 segments. The first chunk ends behind the
  // second segment of row 10, with 10 * 257 + 256 elements; the last one has one element.
  EXPECT_EQ(range(Encoding::kBitmap, 11, 257).max, 2 * 512 + 5664 + 16 + 16);
  // The same, chunk by chunk, for shapes whose rows and chunks end apart.
  for (const std::int64_t cols : {1, 127, 128, 129, 300, 640, 4000, 4097, 9999}) {
    for (const std::int64_t rows : {1, 2, 31, 33, 64, 100}) {
      const std::int64_t row_segments = (cols + 127) / 128;
      std::int64_t bytes = 0;
      std::int64_t cells = 0;
      for (std::int64_t g = 0; g < rows * row_segments; ++g) {
        cells += std::min<std::int64_t>(128, cols - g % row_segments * 128);
        if (g % 32 == 31 || g == rows * row_segments - 1) bytes += ((cells + 1) / 2 + 15) / 16 * 16;
        if (g % 32 == 31) cells = 0;
      }
      const ByteRange sizes = range(Encoding::kBitmapInt4, rows, cols);
      EXPECT_EQ(sizes.max - sizes.min, bytes) << rows << " x " << cols;
    }
  }
  // Whole segments fill their chunks without padding.
  EXPECT_EQ(range(Encoding::kBitmapInt4, 9216, 9216).max,
            9216 * 9216 / 2 + 9216 * 72 / 32 * 576 + (9216 * 72 / 32 + 4) / 4 * 16);
}

TEST(WeightFormat, SizesOfPairsGoFromFixedPartsToAllWords) {
  const ByteRange unit = weight_byte_range({Encoding::kPairs24, DType::kF16}, 64, 256);
  EXPECT_EQ(unit.min, 16 + 4 * 704 + 16);
  EXPECT_EQ(unit.max, 16 + 4 * 704 + 512 + 64 * 256 * 2 + 16);
  // Units of 64 x 256, 64 x 1, 17 x 256 and 17 x 1: 4 and 2 strips, 8 steps and 1.
  const ByteRange four = weight_byte_range({Encoding::kPairs24, DType::kBF16}, 81, 257);
  EXPECT_EQ(num_tiles(Encoding::kPairs24, 81, 257), 4);
  EXPECT_EQ(four.min, 4 * (16 + 4 * 704) + 32);
  EXPECT_EQ(four.max, four.min + 4 * 512 + (32 + 4 + 16 + 2) * 1024);
}

TEST(WeightFormat, LargestShapesDoNotOverflow) {
  const std::int64_t most = std::int64_t{1} << 24;  // what a manifest may hold
  for (const Encoding encoding : all_encodings()) {
    for (const std::int64_t cols : {most, most - 128, most - 1}) {
      const ByteRange range = weight_byte_range({encoding, DType::kF16}, most, cols);
      EXPECT_GT(range.min, 0) << encoding_name(encoding);
      EXPECT_GE(range.max, range.min) << encoding_name(encoding);
      EXPECT_LE(range.max, 5 * most * most) << encoding_name(encoding);
    }
  }
}

TEST(WeightFormat, VariableSizesHaveTilesAndNoExactSize) {
  for (const Encoding encoding : all_encodings()) {
    EXPECT_EQ(num_tiles(encoding, 300, 300) == 0, has_fixed_size(encoding)) << encoding_name(encoding);
    if (has_fixed_size(encoding)) continue;
    EXPECT_THROW(weight_bytes({encoding, DType::kF16}, 300, 300), Error);
  }
  EXPECT_EQ(tile_table_bytes(0), 0);
  EXPECT_EQ(tile_table_bytes(3), 16);
  EXPECT_EQ(tile_table_bytes(4), 32);
}

TEST(WeightFormat, GroupsAndBits) {
  EXPECT_EQ(quant_group_cols(Encoding::kInt8, 300), 300);
  EXPECT_EQ(quant_group_cols(Encoding::kInt4SymG64, 300), 64);
  EXPECT_EQ(quant_group_cols(Encoding::kBitmapInt4, 300), 128);
  EXPECT_EQ(element_bits(Encoding::kBankCsl), 16);
  EXPECT_EQ(element_bits(Encoding::kBitmapInt8), 8);
  EXPECT_TRUE(is_lossless(Encoding::kBitmap));
  EXPECT_FALSE(is_lossless(Encoding::kBitmapInt4));
}

}  // namespace
}  // namespace sluice
