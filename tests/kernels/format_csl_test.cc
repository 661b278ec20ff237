// The sparse formats over all shapes and masks: what is stored comes back.
#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <span>

#include <gtest/gtest.h>

#include "core/checkpoint/reader.h"
#include "kernels/device/cpu/simd.h"
#include "kernels/format/tile_table.h"
#include "tests/kernels/format_support.h"
#include "tests/kernels/weight_cases.h"
#include "tests/support/paths.h"

namespace sluice::kernels {
namespace {

using testing::StoredMatrix;
using testing::weight_cases;
using testing::WeightCase;

constexpr std::array kSparseFormats = {
    WeightFormat{Encoding::kTiledCsl, DType::kF16}, WeightFormat{Encoding::kTiledCsl, DType::kBF16},
    WeightFormat{Encoding::kBankCsl, DType::kF16},  WeightFormat{Encoding::kBankCsl, DType::kBF16},
    WeightFormat{Encoding::kPairs24, DType::kF16},  WeightFormat{Encoding::kPairs24, DType::kBF16}};

class CslFormat : public ::testing::TestWithParam<WeightFormat> {
 protected:
  const FormatCodec& codec() const { return codec_of(GetParam().encoding); }
  std::int64_t granule() const { return codec().row_granule(1); }
  StoredMatrix stored(const WeightCase& c) const {
    return StoredMatrix(GetParam(), c.rows, c.cols, make_weights(c, GetParam().dtype));
  }
};

std::vector<std::uint16_t> rows_of(const std::vector<std::uint16_t>& values, std::int64_t cols,
                                   std::int64_t first, std::int64_t num_rows) {
  return {values.begin() + first * cols, values.begin() + (first + num_rows) * cols};
}

TEST_P(CslFormat, GivesEveryValueBack) {
  for (const WeightCase& c : weight_cases()) {
    SCOPED_TRACE(c.name);
    const StoredMatrix matrix = stored(c);
    const auto expected = testing::canonical(make_weights(c, GetParam().dtype));
    ASSERT_NO_THROW(matrix.check());
    ASSERT_EQ(matrix.expand(), expected);
    std::vector<float> floats(expected.size());
    decode_matrix(matrix.view(), floats);
    for (std::size_t i = 0; i < floats.size(); ++i) {
      const float value =
          GetParam().dtype == DType::kF16 ? to_float(Half{expected[i]}) : to_float(BFloat16{expected[i]});
      ASSERT_EQ(floats[i], value) << i;
    }
  }
}

TEST_P(CslFormat, ExpandsAnyRangeOfWholeBlocks) {
  for (const WeightCase& c : weight_cases()) {
    SCOPED_TRACE(c.name);
    const StoredMatrix matrix = stored(c);
    const auto all = matrix.expand();
    for (std::int64_t first = 0; first < c.rows; first += granule()) {
      for (std::int64_t end = first + granule(); end < c.rows + granule(); end += granule()) {
        const std::int64_t num_rows = std::min(end, c.rows) - first;
        ASSERT_EQ(matrix.expand(first, num_rows), rows_of(all, c.cols, first, num_rows)) << first;
      }
    }
  }
}

TEST_P(CslFormat, EncodesInRunsToTheSameBytes) {
  for (const WeightCase& c : weight_cases()) {
    SCOPED_TRACE(c.name);
    const StoredMatrix matrix = stored(c);
    const auto values = make_weights(c, GetParam().dtype);
    for (const std::int64_t run_rows : {granule(), 2 * granule()}) {
      std::vector<std::byte> joined;
      TileSizes sizes;
      for (std::int64_t first = 0; first < c.rows; first += run_rows) {
        const std::int64_t num_rows = std::min(run_rows, c.rows - first);
        const auto run_values = rows_of(values, c.cols, first, num_rows);
        // Guard bytes behind the most that a run may need.
        const std::int64_t most = codec().max_run_bytes(num_rows, c.cols);
        std::vector<std::byte> out(static_cast<std::size_t>(most) + 64, std::byte{0xAB});
        const std::int64_t used =
            codec().encode({&matrix.tensor, GetParam().dtype, first, num_rows, run_values},
                           std::span(out).first(static_cast<std::size_t>(most)), sizes);
        ASSERT_LE(used, most);
        for (std::int64_t i = used; i < most + 64; ++i)
          ASSERT_EQ(out[static_cast<std::size_t>(i)], std::byte{0xAB});
        joined.insert(joined.end(), out.begin(), out.begin() + used);
      }
      ASSERT_EQ(static_cast<std::int64_t>(sizes.size()), num_tiles(GetParam().encoding, c.rows, c.cols));
      const auto table = encode_tile_table(sizes, c.name);
      joined.insert(joined.end(), table.begin(), table.end());
      ASSERT_EQ(joined, matrix.bytes);
    }
  }
}

TEST_P(CslFormat, StaysWithinItsSizes) {
  for (const WeightCase& c : weight_cases()) {
    SCOPED_TRACE(c.name);
    const auto bytes = static_cast<std::int64_t>(stored(c).bytes.size());
    const ByteRange range = weight_byte_range(GetParam(), c.rows, c.cols);
    EXPECT_GE(bytes, range.min);
    EXPECT_LE(bytes, range.max);
    EXPECT_EQ(bytes % kTileAlign, 0);
    // Both ends are reached; a single row fills no unit of pairs24, and half the registers of its lanes.
    if (c.sparsity == 1.0) {
      EXPECT_EQ(bytes, range.min);
    } else if (c.sparsity == 0.0 && (c.rows > 1 || GetParam().encoding != Encoding::kPairs24)) {
      EXPECT_EQ(bytes, range.max);
    }
  }
}

TEST_P(CslFormat, StoresTheSameBytesOnEverySimdTarget) {
  for (const WeightCase& c : weight_cases()) {
    SCOPED_TRACE(c.name);
    const StoredMatrix matrix = stored(c);
    for (const std::string& target : simd_targets()) {
      force_simd_target(target);
      EXPECT_EQ(stored(c).bytes, matrix.bytes) << target;
    }
    force_simd_target("");
  }
}

TEST_P(CslFormat, HoldsAnyMaskOfATile) {
  // Densities row by row and column by column, so that lists differ much in length and have long gaps.
  for (std::uint32_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    const std::int64_t rows = 1 + static_cast<std::int64_t>(random() % 300);
    const std::int64_t cols = 1 + static_cast<std::int64_t>(random() % 300);
    const double power = uniform(random) * 6;
    std::vector<double> row_density, col_density;
    for (std::int64_t r = 0; r < rows; ++r) row_density.push_back(std::pow(uniform(random), power));
    for (std::int64_t c = 0; c < cols; ++c) col_density.push_back(std::pow(uniform(random), power / 4));
    std::vector<std::uint16_t> values;
    for (const double row : row_density) {
      for (const double col : col_density)
        values.push_back(uniform(random) < row * col ? static_cast<std::uint16_t>(0x2C01U + random() % 999)
                                                     : 0);
    }
    const StoredMatrix matrix(GetParam(), rows, cols, values);
    ASSERT_NO_THROW(matrix.check());
    ASSERT_EQ(matrix.expand(), values);
  }
}

TEST_P(CslFormat, HoldsTheMasksOfATrainedModel) {
  const auto reader = open_checkpoint(::sluice::testing::golden("tiny-opt-books-sparse80/model.safetensors"));
  int num_matrices = 0;
  for (std::size_t t = 0; t < reader->tensors().size(); ++t) {
    const CheckpointTensor& tensor = reader->tensors()[t];
    if (tensor.shape.size() != 2 || tensor.dtype != DType::kF16) continue;
    SCOPED_TRACE(tensor.name);
    ++num_matrices;
    std::vector<std::uint16_t> values(static_cast<std::size_t>(tensor.num_elements()));
    reader->read(t, 0, tensor.num_elements(), std::as_writable_bytes(std::span(values)));
    const StoredMatrix matrix(GetParam(), tensor.shape[0], tensor.shape[1], values);
    ASSERT_NO_THROW(matrix.check());
    ASSERT_EQ(matrix.expand(), testing::canonical(values));
    if (tensor.name.find("fc1.weight") == std::string::npos) continue;
    // 80 % zeros: what random masks of that many take, within the unevenness of real ones.
    const double per_weight = static_cast<double>(matrix.bytes.size()) / static_cast<double>(values.size());
    EXPECT_LT(per_weight, GetParam().encoding == Encoding::kTiledCsl  ? 0.82
                          : GetParam().encoding == Encoding::kBankCsl ? 0.62
                                                                      : 0.88);
  }
  EXPECT_GE(num_matrices, 36);
}

INSTANTIATE_TEST_SUITE_P(Formats, CslFormat, ::testing::ValuesIn(kSparseFormats),
                         [](const auto& param) { return weight_format_name(param.param); });

/// How a warp stores lists of words to shared memory.
struct StoreCost {
  std::int64_t stores = 0, wavefronts = 0, bound = 0;

  void add(std::span<const std::uint32_t> words) {
    const std::size_t vectors = words.size() / 4;
    std::array<std::int64_t, 32> total{};
    std::int64_t here = 0;
    for (std::size_t first = 0; first < vectors; first += 32) {
      for (std::size_t v = 0; v < 4; ++v) {
        std::array<std::int64_t, 32> in_store{};
        for (std::size_t lane = first; lane < std::min(first + 32, vectors); ++lane) {
          const std::uint32_t bank = (words[lane * 4 + v] >> 18) % 32;
          ++in_store[bank];
          ++total[bank];
        }
        wavefronts += *std::max_element(in_store.begin(), in_store.end());
        ++here;
      }
    }
    stores += here;
    bound += std::max(here, *std::max_element(total.begin(), total.end()));
  }
  double factor() const { return static_cast<double>(wavefronts) / static_cast<double>(stores); }
};

/// Wavefronts per store of the words of a random 1024 x 1024 matrix.
StoreCost cost_of(double sparsity) {
  const WeightCase c{"random", 1024, 1024, testing::Mask::kRandom, sparsity};
  const StoredMatrix matrix(kSparseFormats[0], c.rows, c.cols, make_weights(c, DType::kF16));
  const TileTable table(matrix.view());
  StoreCost cost;
  for (std::int64_t i = 0; i < table.num_tiles(); ++i) cost.add(testing::words_of(table.tile(i)));
  return cost;
}

TEST(TiledCsl, StoresWithFewerConflictsThanFlashLlm) {
  struct Case {
    double sparsity, flash_llm;
  };
  for (const Case& c : {Case{0.5, 1.17}, {0.6, 1.21}, {0.7, 1.27}, {0.8, 1.37}, {0.9, 1.50}, {0.95, 1.58}}) {
    const StoreCost cost = cost_of(c.sparsity);
    EXPECT_LT(cost.factor(), 0.97 * c.flash_llm) << c.sparsity;
    EXPECT_LT(static_cast<double>(cost.wavefronts), 1.06 * static_cast<double>(cost.bound)) << c.sparsity;
  }
}

TEST(TiledCsl, ReachesTheBoundWhereFewBanksHoldAll) {
  const WeightCase c{"column_pairs", 128, 64, testing::Mask::kColumnPairs};
  const StoredMatrix matrix(kSparseFormats[0], c.rows, c.cols, make_weights(c, DType::kF16));
  StoreCost cost;
  cost.add(testing::words_of(TileTable(matrix.view()).tile(0)));
  EXPECT_EQ(cost.wavefronts, cost.bound);
}

}  // namespace
}  // namespace sluice::kernels
