#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "core/error.h"
#include "kernels/device/cpu/simd.h"
#include "kernels/format/format.h"
#include "kernels/format/random_weights.h"

namespace sluice::kernels {
namespace {

ModelSpec spec_of_48_layers() {
  ModelSpec spec;
  spec.num_layers = 48;
  spec.hidden_dim = spec.embed_dim = 1024;
  spec.ffn_dim = 4096;
  spec.num_heads = spec.num_kv_heads = 8;
  spec.head_dim = 128;
  spec.vocab_size = 2000;
  spec.max_positions = 128;
  return spec;
}

TensorSpec tensor_named(const ModelSpec& spec, std::string_view suffix) {
  for (const TensorSpec& tensor : model_tensors(spec)) {
    if (tensor.name.ends_with(suffix)) return tensor;
  }
  throw Error(Code::kNotFound, std::string(suffix));
}

std::vector<std::byte> make(const TensorSpec& tensor, WeightFormat format = WeightFormat::kDenseF16,
                            std::uint64_t seed = 1) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(weight_bytes(format, tensor.rows, tensor.cols)));
  random_tensor(tensor, spec_of_48_layers(), format, seed, bytes);
  return bytes;
}

std::vector<float> make_floats(const TensorSpec& tensor, std::uint64_t seed = 1) {
  const std::vector<std::byte> bytes = make(tensor, WeightFormat::kDenseF16, seed);
  std::vector<float> values(static_cast<std::size_t>(tensor.rows * tensor.cols));
  decode_matrix({WeightFormat::kDenseF16, bytes, tensor.rows, tensor.cols}, values);
  return values;
}

struct Moments {
  double mean = 0, std = 0;
};
Moments moments_of(const std::vector<float>& values) {
  double sum = 0, squares = 0;
  for (const float value : values) sum += value, squares += static_cast<double>(value) * value;
  const auto n = static_cast<double>(values.size());
  return {sum / n, std::sqrt(squares / n - sum / n * sum / n)};
}
double correlation(const std::vector<float>& a, const std::vector<float>& b, std::size_t lag) {
  const Moments ma = moments_of(a), mb = moments_of(b);
  double sum = 0;
  const std::size_t n = a.size() - lag;
  for (std::size_t i = 0; i < n; ++i) sum += (a[i] - ma.mean) * (b[i + lag] - mb.mean);
  return sum / (static_cast<double>(n) * ma.std * mb.std);
}

TEST(RandomWeights, HaveTheScaleOfTheirRole) {
  const ModelSpec spec = spec_of_48_layers();
  struct Case {
    const char* name;
    double mean, std;
  };
  const double residual = 1 / std::sqrt(96.0);
  for (const Case& c :
       {Case{"embed_tokens.weight", 0, 1 / 32.0}, Case{"embed_positions.weight", 0, 1 / 32.0},
        Case{"q_proj.weight", 0, 1 / 32.0}, Case{"out_proj.weight", 0, residual / 32},
        Case{"fc1.weight", 0, 1 / 32.0}, Case{"fc2.weight", 0, residual / 64}, Case{"fc1.bias", 0, 0.02},
        Case{"self_attn_layer_norm.weight", 1, 0.02}, Case{"final_layer_norm.bias", 0, 0.02}}) {
    const std::vector<float> values = make_floats(tensor_named(spec, c.name));
    const Moments found = moments_of(values);
    // Six standard errors: of the mean std / sqrt(n); of the standard deviation std / sqrt(2 n) at most.
    const double error = 6 * c.std / std::sqrt(static_cast<double>(values.size()));
    EXPECT_NEAR(found.mean, c.mean, error) << c.name;
    EXPECT_NEAR(found.std, c.std, error) << c.name;
  }
}

TEST(RandomWeights, AreIndependentOverElementsTensorsAndSeeds) {
  const ModelSpec spec = spec_of_48_layers();
  const TensorSpec q = tensor_named(spec, "layers.0.self_attn.q_proj.weight");
  const std::vector<float> values = make_floats(q);
  const double bound = 6 / std::sqrt(static_cast<double>(values.size()));
  for (const std::size_t lag : {1U, 2U, 3U, 8U, 16U, 1024U, 65536U}) {
    EXPECT_LT(std::fabs(correlation(values, values, lag)), bound) << lag;
  }
  EXPECT_LT(
      std::fabs(correlation(values, make_floats(tensor_named(spec, "layers.0.self_attn.k_proj.weight")), 0)),
      bound);
  EXPECT_LT(
      std::fabs(correlation(values, make_floats(tensor_named(spec, "layers.1.self_attn.q_proj.weight")), 0)),
      bound);
  EXPECT_LT(std::fabs(correlation(values, make_floats(q, 2), 0)), bound);
  EXPECT_EQ(values, make_floats(q)) << "the same seed gives the same tensor";
}

TEST(RandomWeights, AreTheSameInAnyPieces) {
  const TensorSpec tensor = tensor_named(spec_of_48_layers(), "fc1.weight");
  for (const WeightFormat format : {WeightFormat::kDenseF16, WeightFormat::kDenseBF16}) {
    const std::vector<std::byte> whole = make(tensor, format);
    std::vector<std::byte> pieces(whole.size());
    std::mt19937 random(3);
    for (std::size_t at = 0; at < pieces.size();) {
      const std::size_t count = std::min(pieces.size() - at, std::size_t{2} * (1 + random() % 100000));
      random_tensor_range(tensor, spec_of_48_layers(), format, 1, static_cast<std::int64_t>(at),
                          std::span(pieces).subspan(at, count));
      at += count;
    }
    EXPECT_EQ(pieces, whole);
  }
}

TEST(RandomWeights, AreTheSameOnEveryTarget) {
  const TensorSpec tensor = tensor_named(spec_of_48_layers(), "q_proj.weight");
  const std::vector<std::byte> expected = make(tensor);
  for (const std::string& target : simd_targets()) {
    force_simd_target(target);
    EXPECT_EQ(make(tensor), expected) << target;
  }
  force_simd_target("");
}

TEST(RandomWeights, DoNotRepeatBeyond32BitsOfElements) {
  const TensorSpec huge{"decoder.huge.weight", 0,     std::int64_t{1} << 20,
                        std::int64_t{1} << 14, false, SplitRule::kRows};
  const auto part = [&](std::int64_t first_element) {
    std::vector<std::byte> bytes(4096);
    random_tensor_range(huge, spec_of_48_layers(), WeightFormat::kDenseF16, 1, 2 * first_element, bytes);
    return bytes;
  };
  constexpr std::int64_t kPeriod = std::int64_t{1} << 32;
  EXPECT_NE(part(0), part(kPeriod));
  EXPECT_NE(part(kPeriod), part(2 * kPeriod));
  const std::vector<std::byte> across = part(kPeriod - 1024);
  const std::vector<std::byte> behind = part(kPeriod);
  EXPECT_TRUE(std::equal(across.begin() + 2048, across.end(), behind.begin()));
}

TEST(RandomWeights, StayInsideTheTensor) {
  const TensorSpec tensor = tensor_named(spec_of_48_layers(), "fc1.bias");
  std::vector<std::byte> bytes(4);
  for (const std::int64_t first : {std::int64_t{-2}, std::int64_t{1}, 2 * tensor.cols - 2}) {
    EXPECT_THROW(random_tensor_range(tensor, spec_of_48_layers(), WeightFormat::kDenseF16, 1, first, bytes),
                 Error);
  }
}

// y = x + W2 relu(W1 norm(x)) through 96 layers, as wide as a test allows.
TEST(RandomWeights, KeepActivationsFiniteThrough96Layers) {
  ModelSpec spec = spec_of_48_layers();
  spec.num_layers = 96;
  spec.hidden_dim = 64;
  spec.ffn_dim = 256;
  std::vector<double> x(64, 0.01);
  for (int layer = 0; layer < 96; ++layer) {
    const auto weights = [&](const char* name, std::int64_t rows, std::int64_t cols) {
      const TensorSpec tensor{fmt::format("decoder.layers.{}.{}.weight", layer, name),
                              layer + 1,
                              rows,
                              cols,
                              false,
                              SplitRule::kRows};
      std::vector<std::byte> bytes(static_cast<std::size_t>(2 * rows * cols));
      random_tensor(tensor, spec, WeightFormat::kDenseF16, 5, bytes);
      std::vector<float> values(static_cast<std::size_t>(rows * cols));
      decode_matrix({WeightFormat::kDenseF16, bytes, rows, cols}, values);
      return values;
    };
    double norm = 0;
    for (const double value : x) norm += value * value / 64;
    const std::vector<float> w1 = weights("fc1", 256, 64), w2 = weights("fc2", 64, 256);
    std::vector<double> hidden(256, 0.0);
    for (std::size_t r = 0; r < 256; ++r) {
      for (std::size_t c = 0; c < 64; ++c) hidden[r] += w1[r * 64 + c] * x[c] / std::sqrt(norm + 1e-5);
      hidden[r] = std::max(hidden[r], 0.0);
    }
    for (std::size_t r = 0; r < 64; ++r) {
      for (std::size_t c = 0; c < 256; ++c) x[r] += w2[r * 256 + c] * hidden[c];
    }
  }
  for (const double value : x) EXPECT_LT(std::fabs(value), 10);
}

}  // namespace
}  // namespace sluice::kernels
