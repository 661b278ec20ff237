// The stages of kernels/layers against the model's equations (OPT, Zhang et al. 2022) in double.
#include "kernels/layers/decoder.h"

#include <cmath>

#include "core/error.h"
#include "tests/kernels/kernel_support.h"

namespace sluice::kernels {
namespace {

using namespace testing;
using Row = std::vector<double>;

// fp32 against double: sums of at most 96 terms of size up to 30, at most 4 in a row with a norm between,
// which multiplies errors by less than 10: 4 * 10 * 96 * 30 * 2^-24 < 1e-2 at the very worst. Observed: below
// 1e-5. A wrong order, a forgotten bias or a norm in the wrong place shows as 1e-1 and more.
constexpr double kTolerance = 1e-3;

struct Matrices {
  explicit Matrices(Random& random, std::int64_t embed, std::int64_t hidden, std::int64_t ffn)
      : tokens(WeightFormat::kDenseF16, 50, embed, random),
        positions(WeightFormat::kDenseF16, 40, hidden, random),
        in(WeightFormat::kDenseF16, hidden, embed, random),
        project_out(WeightFormat::kDenseF16, embed, hidden, random),
        square(WeightFormat::kDenseF16, hidden, hidden, random, 0.2F),
        square2(WeightFormat::kDenseF16, hidden, hidden, random, 0.2F),
        up(WeightFormat::kDenseF16, ffn, hidden, random, 0.2F),
        down(WeightFormat::kDenseF16, hidden, ffn, random, 0.2F),
        wide(WeightFormat::kDenseF16, 1, ffn, random) {
    for (int i = 0; i < 6; ++i) vectors.emplace_back(WeightFormat::kDenseF16, 1, hidden, random);
  }
  DenseWeight tokens, positions, in, project_out, square, square2, up, down, wide;
  std::vector<DenseWeight> vectors;
};

double at(const WeightView& w, std::int64_t r, std::int64_t c) {
  return element(w.data.data(), DType::kF16, r * w.cols + c);
}

Row linear_row(const Row& x, const WeightView& w, const ConstVectorView& bias = {}) {
  Row y;
  for (std::int64_t f = 0; f < w.rows; ++f) {
    double sum = bias ? element(bias.data, DType::kF16, f) : 0;
    for (std::int64_t i = 0; i < w.cols; ++i) sum += x[static_cast<std::size_t>(i)] * at(w, f, i);
    y.push_back(sum);
  }
  return y;
}

Row norm_row(const Row& x, const NormWeights& w) {
  double mean = 0;
  double square = 0;
  for (const double v : x) mean += v / static_cast<double>(x.size());
  for (const double v : x) square += (v - mean) * (v - mean) / static_cast<double>(x.size());
  Row y;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto c = static_cast<std::int64_t>(i);
    y.push_back((x[i] - mean) / std::sqrt(square + 1e-5) *
                    (w.gamma ? element(w.gamma.data, DType::kF16, c) : 1) +
                (w.beta ? element(w.beta.data, DType::kF16, c) : 0));
  }
  return y;
}

Row add(Row a, const Row& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

Row row_of(const GuardedMatrix& m, std::int64_t r) {
  Row row;
  for (std::int64_t c = 0; c < m.cols(); ++c) row.push_back(m.at(r, c));
  return row;
}

void expect_row(const GuardedMatrix& actual, std::int64_t r, const Row& expected) {
  for (std::int64_t c = 0; c < actual.cols(); ++c) {
    ASSERT_NEAR(actual.at(r, c), expected[static_cast<std::size_t>(c)], kTolerance)
        << "row " << r << " column " << c;
  }
}

struct Shape {
  bool pre_norm, projected, affine;
};

class Decoder : public ::testing::TestWithParam<Shape> {
 protected:
  static constexpr std::int64_t kHidden = 48, kFfn = 96, kRows = 21;
  Decoder() : stream(pool), random(5), m(random, embed(), kHidden, kFfn) {
    spec.hidden_dim = kHidden;
    spec.embed_dim = embed();
    spec.ffn_dim = kFfn;
    spec.pre_norm = spec.final_norm = GetParam().pre_norm;
    const auto norm = [&](std::size_t i) {
      return GetParam().affine ? NormWeights{m.vectors[i].vector(), m.vectors[i + 1].vector()}
                               : NormWeights{};
    };
    layer.attn_norm = norm(0);
    layer.mlp_norm = norm(2);
    layer.q = {m.square.view(), m.vectors[4].vector()};
    layer.k = {m.square2.view(), m.vectors[5].vector()};
    layer.v = {m.square.view(), {}};
    layer.out = {m.square2.view(), m.vectors[4].vector()};
    layer.fc1 = {m.up.view(), m.wide.vector()};
    layer.fc2 = {m.down.view(), m.vectors[5].vector()};
    x = GuardedMatrix::random(kRows, kHidden, 0, random);
  }
  static std::int64_t embed() { return GetParam().projected ? 24 : kHidden; }

  ThreadPool pool{2};
  Stream stream;
  Random random;
  Matrices m;
  ModelSpec spec;
  DecoderWeights layer;
  GuardedMatrix x{0, 0}, normed{kRows, kHidden};
};

TEST_P(Decoder, InputAddsTokensAndPositions) {
  const InputWeights weights{m.tokens.view(), m.positions.view(),
                             GetParam().projected ? m.in.view() : WeightView{}};
  const std::vector<std::int32_t> ids{3, 49, 3}, positions{2, 39, 7};
  GuardedMatrix embedded(3, embed());
  GuardedMatrix y(3, kHidden);
  run_input({.spec = &spec,
             .weights = &weights,
             .ids = ids,
             .position_rows = positions,
             .embedded = embedded.view(),
             .x = y.view()},
            stream);
  for (std::int64_t t = 0; t < 3; ++t) {
    const auto index = static_cast<std::size_t>(t);
    Row token;
    for (std::int64_t i = 0; i < embed(); ++i) token.push_back(at(weights.embed_tokens, ids[index], i));
    Row expected = GetParam().projected ? linear_row(token, weights.project_in) : token;
    for (std::int64_t i = 0; i < kHidden; ++i) {
      expected[static_cast<std::size_t>(i)] += at(weights.embed_positions, positions[index], i);
    }
    expect_row(y, t, expected);
  }
  y.expect_guards_intact();
  embedded.expect_guards_intact();
}

TEST_P(Decoder, PreProjectsTheNormedOrThePlainInput) {
  GuardedMatrix q(kRows, kHidden);
  GuardedMatrix k(kRows, kHidden, 4);
  GuardedMatrix v(kRows, kHidden);
  run_pre({.spec = &spec,
           .weights = &layer,
           .x = std::as_const(x).view(),
           .normed = normed.view(),
           .q = q.view(),
           .k = k.view(),
           .v = v.view()},
          stream);
  for (std::int64_t r = 0; r < kRows; ++r) {
    const Row input = spec.pre_norm ? norm_row(row_of(x, r), layer.attn_norm) : row_of(x, r);
    expect_row(q, r, linear_row(input, layer.q.weight, layer.q.bias));
    expect_row(k, r, linear_row(input, layer.k.weight, layer.k.bias));
    expect_row(v, r, linear_row(input, layer.v.weight));
  }
  k.expect_guards_intact();
}

TEST_P(Decoder, PostAddsAttentionAndTheMlpInAnyChunks) {
  const GuardedMatrix attn = GuardedMatrix::random(kRows, kHidden, 2, random);
  GuardedMatrix whole(0, 0);
  for (const std::int64_t chunk : {kRows + 5, kRows, std::int64_t{7}, std::int64_t{1}}) {
    GuardedMatrix y = x;
    GuardedMatrix hidden(chunk, kFfn);
    run_post({.spec = &spec,
              .weights = &layer,
              .attn = attn.view(),
              .x = y.view(),
              .normed = normed.view(),
              .hidden = hidden.view()},
             stream);
    y.expect_guards_intact();
    hidden.expect_guards_intact();
    if (whole.rows() == 0) {
      whole = y;
    } else {
      y.expect_same_bits(whole);
    }
  }
  for (std::int64_t r = 0; r < kRows; ++r) {
    Row h = add(row_of(x, r), linear_row(row_of(attn, r), layer.out.weight, layer.out.bias));
    if (!spec.pre_norm) h = norm_row(h, layer.attn_norm);
    Row inner = linear_row(spec.pre_norm ? norm_row(h, layer.mlp_norm) : h, layer.fc1.weight, layer.fc1.bias);
    for (double& value : inner) value = std::max(value, 0.0);
    h = add(h, linear_row(inner, layer.fc2.weight, layer.fc2.bias));
    if (!spec.pre_norm) h = norm_row(h, layer.mlp_norm);
    expect_row(whole, r, h);
  }
}

TEST_P(Decoder, OutputNormsProjectsAndMultipliesByTheVocabulary) {
  const OutputWeights weights{layer.mlp_norm, GetParam().projected ? m.project_out.view() : WeightView{},
                              m.tokens.view()};
  GuardedMatrix projected(kRows, embed());
  GuardedMatrix logits(kRows, 50);
  run_output({.spec = &spec,
              .weights = &weights,
              .x = std::as_const(x).view(),
              .normed = normed.view(),
              .projected = projected.view(),
              .logits = logits.view()},
             stream);
  for (std::int64_t r = 0; r < kRows; ++r) {
    Row h = spec.final_norm ? norm_row(row_of(x, r), weights.final_norm) : row_of(x, r);
    if (GetParam().projected) h = linear_row(h, weights.project_out);
    expect_row(logits, r, linear_row(h, weights.vocab));
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, Decoder,
                         ::testing::Values(Shape{true, false, true}, Shape{false, true, true},
                                           Shape{true, true, false}, Shape{false, false, false}),
                         [](const auto& test) {
                           return std::string(test.param.pre_norm ? "pre_norm" : "post_norm") +
                                  (test.param.projected ? "_projected" : "") +
                                  (test.param.affine ? "" : "_plain_norms");
                         });

TEST(DecoderErrors, MissingWeightsAreRefused) {
  ThreadPool pool(1);
  Stream stream(pool);
  EXPECT_THROW(run_pre({}, stream), Error);
  EXPECT_THROW(run_post({}, stream), Error);
  EXPECT_THROW(run_input({}, stream), Error);
  EXPECT_THROW(run_output({}, stream), Error);
}

}  // namespace
}  // namespace sluice::kernels
