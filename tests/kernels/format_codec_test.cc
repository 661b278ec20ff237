// What every codec of the table promises, on every case of weight_cases.h.
#include <gtest/gtest.h>

#include "core/units.h"
#include "kernels/device/cpu/simd.h"
#include "kernels/format/tile_table.h"
#include "tests/kernels/format_support.h"

namespace sluice::kernels {
namespace {

using testing::canonical;
using testing::make_weights;
using testing::StoredMatrix;
using testing::weight_cases;
using testing::WeightCase;

std::vector<Encoding> encodings_with_codec() {
  std::vector<Encoding> found;
  for (const Encoding encoding : all_encodings()) {
    try {
      found.push_back(codec_of(encoding).encoding);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kUnsupported);
    }
  }
  return found;
}

class FormatCodecs : public ::testing::TestWithParam<Encoding> {
 protected:
  /// Calls body(case, format, values) for all cases, in both types.
  template <class Body>
  void for_each_case(const Body& body) {
    for (const WeightCase& c : weight_cases()) {
      for (const DType dtype : {DType::kF16, DType::kBF16}) {
        const WeightFormat format{GetParam(), dtype};
        SCOPED_TRACE(fmt::format("{} {}", c.name, weight_format_name(format)));
        body(c, format, make_weights(c, dtype));
      }
    }
  }
};

TEST_P(FormatCodecs, ComesBackWithinItsSize) {
  for_each_case([](const WeightCase& c, WeightFormat format, const std::vector<std::uint16_t>& values) {
    const StoredMatrix matrix(format, c.rows, c.cols, values);
    const auto size = static_cast<std::int64_t>(matrix.bytes.size());
    const ByteRange range = weight_byte_range(format, c.rows, c.cols);
    EXPECT_GE(size, range.min);
    EXPECT_LE(size, range.max);
    const std::int64_t table = tile_table_bytes(num_tiles(format.encoding, c.rows, c.cols));
    EXPECT_LE(size - table, codec_of(format.encoding).max_run_bytes(c.rows, c.cols));
    if (has_fixed_size(format.encoding)) {
      EXPECT_EQ(size, weight_bytes(format, c.rows, c.cols));
    } else {
      EXPECT_EQ(size % 16, 0);
    }
    EXPECT_NO_THROW(matrix.check());
    if (format.encoding == Encoding::kDense) {
      EXPECT_EQ(matrix.expand(), values);
    } else if (is_lossless(format.encoding)) {
      EXPECT_EQ(matrix.expand(), canonical(values));
    }
    EXPECT_EQ(StoredMatrix(format, c.rows, c.cols, values).bytes, matrix.bytes) << "not deterministic";
  });
}

TEST_P(FormatCodecs, ExpandsAnyRowsOnTheirOwn) {
  for_each_case([](const WeightCase& c, WeightFormat format, const std::vector<std::uint16_t>& values) {
    const StoredMatrix matrix(format, c.rows, c.cols, values);
    const std::vector<std::uint16_t> all = matrix.expand();
    const std::int64_t granule = codec_of(format.encoding).row_granule(c.cols);
    const std::int64_t step = div_up(div_up(c.rows, granule), 7) * granule;
    for (std::int64_t first = 0; first < c.rows; first += step) {
      for (std::int64_t end = std::min(first + granule, c.rows); end <= c.rows;
           end = end == c.rows ? end + 1 : std::min(end + step, c.rows)) {
        const std::vector<std::uint16_t> expected(all.begin() + first * c.cols, all.begin() + end * c.cols);
        EXPECT_EQ(matrix.expand(first, end - first), expected) << "rows " << first << " to " << end;
      }
    }
  });
}

TEST_P(FormatCodecs, EncodesInRunsAsAtOnce) {
  for_each_case([](const WeightCase& c, WeightFormat format, const std::vector<std::uint16_t>& values) {
    const StoredMatrix matrix(format, c.rows, c.cols, values);
    const FormatCodec& codec = codec_of(format.encoding);
    for (const std::int64_t granules : {1, 3}) {
      const std::int64_t step = granules * codec.row_granule(c.cols);
      std::vector<std::byte> bytes;
      TileSizes sizes;
      for (std::int64_t first = 0; first < c.rows; first += step) {
        const std::int64_t num_rows = std::min(step, c.rows - first);
        const auto run = std::span(values).subspan(static_cast<std::size_t>(first * c.cols),
                                                   static_cast<std::size_t>(num_rows * c.cols));
        std::vector<std::byte> out(static_cast<std::size_t>(codec.max_run_bytes(num_rows, c.cols)),
                                   std::byte{0xA5});
        const std::int64_t used =
            codec.encode({&matrix.tensor, format.dtype, first, num_rows, run}, out, sizes);
        bytes.insert(bytes.end(), out.begin(), out.begin() + used);
      }
      EXPECT_EQ(static_cast<std::int64_t>(sizes.size()), num_tiles(format.encoding, c.rows, c.cols));
      const std::vector<std::byte> table = encode_tile_table(sizes, matrix.tensor.name);
      bytes.insert(bytes.end(), table.begin(), table.end());
      EXPECT_EQ(bytes, matrix.bytes) << step << " rows a run";
    }
  });
}

TEST_P(FormatCodecs, AllSimdTargetsGiveTheSameBytes) {
  for_each_case([](const WeightCase& c, WeightFormat format, const std::vector<std::uint16_t>& values) {
    const StoredMatrix best(format, c.rows, c.cols, values);
    const std::vector<std::uint16_t> expanded = best.expand();
    for (const std::string& target : simd_targets()) {
      force_simd_target(target);
      EXPECT_EQ(StoredMatrix(format, c.rows, c.cols, values).bytes, best.bytes) << target;
      EXPECT_EQ(best.expand(), expanded) << target;
    }
    force_simd_target("");
  });
}

INSTANTIATE_TEST_SUITE_P(All, FormatCodecs, ::testing::ValuesIn(encodings_with_codec()),
                         [](const auto& param) { return std::string(encoding_name(param.param)); });

}  // namespace
}  // namespace sluice::kernels
