#include "kernels/ops/layer_norm.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "tests/kernels/kernel_support.h"
#include "tests/kernels/layer_norm_cases.h"

namespace sluice::kernels {
namespace {

using namespace testing;

class LayerNorm : public ::testing::TestWithParam<LayerNormCase> {
 protected:
  LayerNorm()
      : random(11),
        x(GuardedMatrix::random(c.rows, c.dim, c.padding, random)),
        gamma(c.format, 1, c.dim, random),
        beta(c.format, 1, c.dim, random) {
    for (std::int64_t r = 0; r < c.rows; ++r) {
      for (std::int64_t i = 0; i < c.dim; ++i) x.at(r, i) += c.offset;
    }
  }
  LayerNormArgs args(GuardedMatrix& y) const {
    return {.x = x.view(),
            .gamma = c.gamma ? gamma.vector() : ConstVectorView{},
            .beta = c.beta ? beta.vector() : ConstVectorView{},
            .y = y.view()};
  }
  const LayerNormCase c = GetParam();
  Random random;
  GuardedMatrix x;
  DenseWeight gamma, beta;
};

TEST_P(LayerNorm, IsCloseToTheReferenceOnEveryTarget) {
  GuardedMatrix shape(c.rows, c.dim);
  const std::vector<Expected> expected = layer_norm_ref(args(shape));
  for_each_target([&] {
    ThreadPool pool(2);
    Stream stream(pool);
    GuardedMatrix y(c.rows, c.dim, c.padding + 3);
    layer_norm(args(y), stream);
    y.expect_near(expected);
    y.expect_guards_intact();
  });
}

TEST_P(LayerNorm, GivesTheSameBitsInPlaceAndForEachRowAlone) {
  for_each_target([&] {
    ThreadPool pool(3);
    Stream stream(pool);
    GuardedMatrix all(c.rows, c.dim);
    layer_norm(args(all), stream);
    GuardedMatrix in_place = x;
    for (std::int64_t r = 0; r < c.rows; ++r) {
      LayerNormArgs row = args(in_place);
      row.x = std::as_const(in_place).view().slice_rows(r, 1);
      row.y = in_place.view().slice_rows(r, 1);
      layer_norm(row, stream);
    }
    in_place.expect_same_bits(all);
    in_place.expect_guards_intact();
  });
}

INSTANTIATE_TEST_SUITE_P(Cpu, LayerNorm, ::testing::ValuesIn(kLayerNormCases),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(LayerNormErrors, RefusesTypesShapesAndPlacesItCannotUse) {
  Random random(1);
  const GuardedMatrix x = GuardedMatrix::random(2, 8, 0, random);
  const DenseWeight gamma(WeightFormat::kDenseF16, 1, 8, random);
  GuardedMatrix y(2, 8);
  const LayerNormArgs good{.x = x.view(), .gamma = gamma.vector(), .beta = gamma.vector(), .y = y.view()};
  ThreadPool pool(1);
  Stream stream(pool);
  EXPECT_EQ(why_unsupported(good, DeviceKind::kCpu), "");
  LayerNormArgs bad = good;
  bad.y.dtype = DType::kBF16;
  EXPECT_EQ(why_unsupported(bad, DeviceKind::kCpu), "y is bf16, must be f32");
  bad = good;
  bad.gamma.dtype = DType::kF32;
  EXPECT_THAT(why_unsupported(bad, DeviceKind::kCpu), ::testing::HasSubstr("gamma is f32"));
  bad = good;
  bad.beta.dtype = DType::kBF16;
  EXPECT_THAT(why_unsupported(bad, DeviceKind::kCpu), ::testing::HasSubstr("differ"));
  bad = good;
  bad.gamma.size = 7;
  EXPECT_THROW(layer_norm(bad, stream), Error);
  stream.restrict_operands(x.bytes());
  EXPECT_THROW(layer_norm(good, stream), Error);
}

}  // namespace
}  // namespace sluice::kernels
