// Synthetic matrices that are sparse or in another format than dense.
#include <cmath>

#include <gtest/gtest.h>

#include "kernels/device/cpu/thread_pool.h"
#include "kernels/format/expected_bytes.h"
#include "kernels/format/random_matrix.h"
#include "kernels/format/random_weights.h"
#include "kernels/format/tile_table.h"
#include "tests/kernels/format_support.h"

namespace sluice::kernels {
namespace {

ModelSpec synthetic_spec() {
  ModelSpec spec;
  spec.name = "synthetic";
  spec.num_layers = 12;  // two digits in a layer's number
  spec.hidden_dim = spec.embed_dim = 250;
  spec.ffn_dim = 600;
  spec.num_heads = spec.num_kv_heads = 5;
  spec.head_dim = 50;
  spec.vocab_size = 100;
  spec.max_positions = 32;
  return spec;
}

/// fc1: several tiles each way in every format, none full at the end.
TensorSpec fc1_of(std::int64_t layer) {
  return {fmt::format("decoder.layers.{}.fc1.weight", layer),
          static_cast<std::int32_t>(layer + 1),
          600,
          250,
          false,
          SplitRule::kRows};
}

/// The stored bytes, made on `num_threads` threads.
std::vector<std::byte> stored(const RandomMatrix& matrix, int num_threads) {
  ThreadPool pool(num_threads);
  const TileSizes tiles = random_tiles(matrix, pool);
  const std::int64_t bytes = has_fixed_size(matrix.format.encoding)
                                 ? weight_bytes(matrix.format, matrix.tensor.rows, matrix.tensor.cols)
                                 : bytes_of_tiles(tiles) + tile_table_bytes(std::ssize(tiles));
  std::vector<std::byte> out(static_cast<std::size_t>(bytes));
  random_matrix(matrix, tiles, pool, out);
  return out;
}

std::vector<std::uint16_t> values_in(const RandomMatrix& matrix, std::span<const std::byte> bytes) {
  const WeightView view{matrix.format, bytes, matrix.tensor.rows, matrix.tensor.cols};
  EXPECT_NO_THROW(codec_of(matrix.format.encoding).check(view, matrix.tensor.name));
  std::vector<std::uint16_t> values(static_cast<std::size_t>(matrix.tensor.rows * matrix.tensor.cols));
  codec_of(matrix.format.encoding).expand(view, 0, matrix.tensor.rows, values);
  return values;
}

std::int64_t zeros_in(std::span<const std::uint16_t> values) {
  return std::ranges::count_if(values, [](std::uint16_t value) { return (value & 0x7FFFU) == 0; });
}

class RandomMatrices : public ::testing::TestWithParam<Encoding> {
 protected:
  const ModelSpec spec_ = synthetic_spec();
  const TensorSpec fc1_ = fc1_of(0);
};

TEST_P(RandomMatrices, AreTheEncodedDenseOnesOnAnyNumberOfThreads) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    for (const double sparsity : {0.0, 0.3, 0.8, 1.0}) {
      SCOPED_TRACE(fmt::format("{} {}", dtype_name(dtype), sparsity));
      const RandomMatrix dense{fc1_, spec_, {Encoding::kDense, dtype}, sparsity, 9};
      const RandomMatrix matrix{fc1_, spec_, {GetParam(), dtype}, sparsity, 9};
      const std::vector<std::byte> one = stored(matrix, 1);
      // Without a mask, a drawn zero stays one only where it does not decide the size.
      if (sparsity > 0 || has_fixed_size(GetParam())) {
        EXPECT_TRUE(one == encode_matrix(fc1_, matrix.format, values_in(dense, stored(dense, 1))));
      }
      EXPECT_TRUE(one == stored(matrix, 2));
      EXPECT_TRUE(one == stored(matrix, 5));
      values_in(matrix, one);  // they pass the check
    }
  }
}

TEST_P(RandomMatrices, HaveTheSameSizeInEveryLayerAndOtherValues) {
  const TensorSpec last = fc1_of(11);
  const WeightFormat format{GetParam(), DType::kF16};
  for (const double sparsity : {0.0, 0.7}) {
    const RandomMatrix here{fc1_, spec_, format, sparsity, 9}, there{last, spec_, format, sparsity, 9};
    EXPECT_EQ(mask_name(here), mask_name(there));
    ThreadPool pool(2);
    EXPECT_EQ(random_tiles(here, pool), random_tiles(there, pool));
    const std::vector<std::byte> first = stored(here, 2), second = stored(there, 2);
    EXPECT_EQ(first.size(), second.size());
    EXPECT_FALSE(first == second);
  }
}

INSTANTIATE_TEST_SUITE_P(All, RandomMatrices, ::testing::ValuesIn(all_encodings()),
                         [](const auto& one) { return std::string(encoding_name(one.param)); });

TEST(RandomMatrix, HasTheShareOfZerosThatIsAskedFor) {
  const ModelSpec spec = synthetic_spec();
  const TensorSpec tensor = fc1_of(3);
  const auto count = static_cast<double>(tensor.rows * tensor.cols);
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    for (const double sparsity : {0.1, 0.5, 0.8, 0.95}) {
      const RandomMatrix matrix{tensor, spec, {Encoding::kDense, dtype}, sparsity, 2};
      const std::vector<std::uint16_t> values = values_in(matrix, stored(matrix, 2));
      // Five standard deviations of a binomial count.
      EXPECT_NEAR(static_cast<double>(zeros_in(values)), sparsity * count,
                  5 * std::sqrt(count * sparsity * (1 - sparsity)))
          << sparsity;
    }
  }
}

TEST(RandomMatrix, WithoutSparsityIsTheDenseSyntheticTensor) {
  const ModelSpec spec = synthetic_spec();
  const TensorSpec tensor = fc1_of(3);
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const WeightFormat format{Encoding::kDense, dtype};
    std::vector<std::byte> expected(static_cast<std::size_t>(weight_bytes(format, tensor.rows, tensor.cols)));
    random_tensor(tensor, spec, format, 2, expected);
    EXPECT_TRUE(stored({tensor, spec, format, 0.0, 2}, 3) == expected);
  }
}

// The dense values of a large matrix hold some zeros; where the mask has none, they may not be.
TEST(RandomMatrix, IsZeroWhereTheMaskSaysAndNowhereElse) {
  const ModelSpec spec = synthetic_spec();
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    std::vector<bool> mask;
    std::int64_t drawn_zeros = 0;
    for (std::int64_t layer = 0; layer < spec.num_layers; ++layer) {
      const TensorSpec tensor = fc1_of(layer);
      const RandomMatrix matrix{tensor, spec, {Encoding::kDense, dtype}, 0.5, 2};
      const RandomMatrix full{tensor, spec, {Encoding::kDense, dtype}, 0.0, 2};
      const std::vector<std::uint16_t> values = values_in(matrix, stored(matrix, 1));
      const std::vector<std::uint16_t> dense = values_in(full, stored(full, 1));
      drawn_zeros += zeros_in(dense);
      if (mask.empty()) {
        for (const std::uint16_t value : values) mask.push_back(value == 0);
      }
      for (std::size_t i = 0; i < values.size(); ++i) {
        ASSERT_EQ(values[i] == 0, mask[i]) << layer << ", element " << i;
        const bool is_kept = !mask[i] && (dense[i] & 0x7FFFU) != 0;
        ASSERT_TRUE(!is_kept || values[i] == dense[i]) << layer << ", element " << i;
      }
    }
    EXPECT_GT(drawn_zeros, 0) << "the case is met";
  }
}

TEST(RandomMatrix, ItsMaskDependsOnSeedShapeSparsityAndKind) {
  const ModelSpec spec = synthetic_spec();
  const TensorSpec fc1 = fc1_of(0);
  TensorSpec other = fc1;
  other.name = "decoder.layers.0.fc2.weight";
  TensorSpec longer = fc1;
  longer.rows = 601;
  const WeightFormat format{Encoding::kBitmap, DType::kF16};
  ThreadPool pool(2);
  const auto tiles = [&](const TensorSpec& tensor, double sparsity, std::uint64_t seed) {
    TileSizes sizes = random_tiles({tensor, spec, format, sparsity, seed}, pool);
    sizes.resize(20);
    return sizes;
  };
  const TileSizes first = tiles(fc1, 0.5, 1);
  EXPECT_EQ(tiles(fc1, 0.5, 1), first);
  EXPECT_NE(tiles(fc1, 0.5, 2), first);
  EXPECT_NE(tiles(fc1, 0.51, 1), first);
  EXPECT_NE(tiles(other, 0.5, 1), first);
  EXPECT_NE(tiles(longer, 0.5, 1), first);
}

TEST(ExpectedBytes, AreThoseOfASyntheticMatrixWithinAFewThousandths) {
  TensorSpec tensor = fc1_of(0);
  tensor.rows = 1024;
  tensor.cols = 1536;
  const auto off = [&](Encoding encoding, double sparsity) {
    const WeightFormat format{encoding, DType::kF16};
    const RandomMatrix matrix{
        .tensor = tensor, .spec = synthetic_spec(), .format = format, .sparsity = sparsity, .seed = 3};
    const std::vector<std::byte> bytes = stored(matrix, 2);
    // The share of zeros that this mask happens to have; quantised nonzeros may decode to zero, the mask's
    // does not.
    RandomMatrix plain = matrix;
    plain.format = {Encoding::kDense, DType::kF16};
    const std::vector<std::uint16_t> values = values_in(plain, stored(plain, 2));
    const double zeros = static_cast<double>(zeros_in(values)) / static_cast<double>(values.size());
    const std::int64_t expected = expected_bytes(format, tensor.rows, tensor.cols, zeros);
    return static_cast<double>(expected) / static_cast<double>(bytes.size()) - 1;
  };
  for (const Encoding encoding : all_encodings()) {
    for (const double sparsity : {0.5, 0.7, 0.8, 0.95}) {
      const double limit = has_fixed_size(encoding) ? 0 : 0.004;
      EXPECT_LE(std::abs(off(encoding, sparsity)), limit) << encoding_name(encoding) << " " << sparsity;
    }
  }
}

TEST(ExpectedBytes, OfNothingButZerosAndOfNoneAreTheFewestAndTheMost) {
  for (const Encoding encoding : {Encoding::kBitmap, Encoding::kBitmapInt4}) {
    const WeightFormat format{encoding, DType::kF16};
    const ByteRange range = weight_byte_range(format, 130, 300);
    EXPECT_EQ(expected_bytes(format, 130, 300, 1), range.min);
    EXPECT_EQ(expected_bytes(format, 130, 300, 0), range.max);
  }
}

}  // namespace
}  // namespace sluice::kernels
