// Embedding, row gathering and layer normalisation on the CUDA device.
#include <gmock/gmock.h>

#include "core/error.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/gather_rows.h"
#include "kernels/ops/layer_norm.h"
#include "tests/kernels/cuda/device_operands.h"
#include "tests/kernels/embedding_cases.h"
#include "tests/kernels/layer_norm_cases.h"

namespace sluice::kernels {
namespace {

using namespace testing;

std::string name_of(const char* name, DType dtype) { return fmt::format("{}_{}", name, dtype_name(dtype)); }

class EmbeddingCuda : public CudaTest,
                      public ::testing::WithParamInterface<std::tuple<EmbeddingCase, DType>> {};

TEST_P(EmbeddingCuda, CopiesAndAddsRowsExactly) {
  const auto& [c, dtype] = GetParam();
  Random random(3);
  const DenseWeight host_table(c.format, c.rows, c.dim, random);
  DeviceMatrix y(*cuda, dtype, GuardedMatrix::random(c.tokens, c.dim, c.padding, random));
  std::vector<std::int32_t> ids;
  for (std::int64_t t = 0; t < c.tokens; ++t) {
    ids.push_back(static_cast<std::int32_t>(between(random, 0, c.rows - 1)));
  }
  const std::vector<Expected> expected =
      embedding_ref({.ids = ids, .table = host_table.view(), .accumulate = c.accumulate, .y = y.host_view()});
  const DeviceWeight table(*cuda, host_table);
  const DeviceArray<std::int32_t> device_ids(*cuda, ids);
  embedding({.ids = device_ids.get(), .table = table.view(), .accumulate = c.accumulate, .y = y.view()},
            stream());
  y.fetch();
  for (std::int64_t r = 0; r < c.tokens; ++r) {
    for (std::int64_t i = 0; i < c.dim; ++i) {
      const auto value = static_cast<float>(expected[static_cast<std::size_t>(r * c.dim + i)].value);
      const float rounded = dtype == DType::kF16 ? to_float(to_half(value)) : to_float(to_bfloat16(value));
      ASSERT_EQ(y.at(r, i), static_cast<double>(rounded)) << "row " << r << " column " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cuda, EmbeddingCuda,
                         ::testing::Combine(::testing::ValuesIn(kEmbeddingCases),
                                            ::testing::Values(DType::kF16, DType::kBF16)),
                         [](const auto& test) {
                           return name_of(std::get<0>(test.param).name, std::get<1>(test.param));
                         });

class GatherRowsCuda : public CudaTest {};

TEST_F(GatherRowsCuda, CopiesRowsOfAnyAlignment) {
  Random random(4);
  struct Shape {
    DType dtype;
    std::int64_t rows, cols, x_padding, y_padding;
  };
  for (const Shape& s : {Shape{DType::kF16, 9, 7168, 0, 8}, Shape{DType::kF16, 9, 13, 3, 0},
                         Shape{DType::kBF16, 5, 6, 2, 4}, Shape{DType::kF32, 30, 50, 1, 0}}) {
    SCOPED_TRACE(s.cols);
    const DeviceMatrix x(*cuda, s.dtype, GuardedMatrix::random(s.rows, s.cols, s.x_padding, random));
    const std::vector<std::int32_t> rows{static_cast<std::int32_t>(s.rows - 1), 0, 2, 2};
    const DeviceArray<std::int32_t> device_rows(*cuda, rows);
    DeviceMatrix y(*cuda, s.dtype, 4, s.cols, s.y_padding);
    gather_rows({.x = x.const_view(), .rows = device_rows.get(), .y = y.view()}, stream());
    y.fetch();
    for (std::int64_t r = 0; r < 4; ++r) {
      for (std::int64_t i = 0; i < s.cols; ++i)
        ASSERT_EQ(y.at(r, i), x.at(rows[static_cast<std::size_t>(r)], i)) << r << ' ' << i;
    }
    gather_rows({.x = x.const_view(), .rows = {}, .y = y.view().slice_rows(0, 0)}, stream());
  }
}

class LayerNormCuda : public CudaTest,
                      public ::testing::WithParamInterface<std::tuple<LayerNormCase, DType>> {};

// One case for each: apart, in place, and each row alone.
TEST_P(LayerNormCuda, IsCloseToTheReferenceInPlaceToo) {
  const auto& [c, dtype] = GetParam();
  Random random(11);
  GuardedMatrix values = GuardedMatrix::random(c.rows, c.dim, c.padding, random);
  for (std::int64_t r = 0; r < c.rows; ++r) {
    for (std::int64_t i = 0; i < c.dim; ++i) values.at(r, i) += c.offset;
  }
  DeviceMatrix x(*cuda, dtype, values);
  const DenseWeight host_gamma(c.format, 1, c.dim, random);
  const DenseWeight host_beta(c.format, 1, c.dim, random);
  const DeviceWeight gamma(*cuda, host_gamma);
  const DeviceWeight beta(*cuda, host_beta);
  const auto vector = [](bool wanted, const ConstVectorView& v) { return wanted ? v : ConstVectorView{}; };
  const std::vector<Expected> expected = layer_norm_ref({.x = x.const_host_view(),
                                                         .gamma = vector(c.gamma, host_gamma.vector()),
                                                         .beta = vector(c.beta, host_beta.vector()),
                                                         .y = x.host_view()});
  const auto tolerance = [](const Expected& e, std::size_t) { return e.tolerance; };
  LayerNormArgs args{
      .x = x.const_view(), .gamma = vector(c.gamma, gamma.vector()), .beta = vector(c.beta, beta.vector())};
  DeviceMatrix y(*cuda, dtype, c.rows, c.dim, c.padding + 8);
  args.y = y.view();
  layer_norm(args, stream());
  y.fetch();
  y.expect_near(expected, tolerance);
  for (std::int64_t r = 0; r < c.rows; ++r) {
    LayerNormArgs row = args;
    row.x = x.const_view().slice_rows(r, 1);
    row.y = x.view().slice_rows(r, 1);
    layer_norm(row, stream());
  }
  x.fetch();
  x.expect_same_bits(y);
}

INSTANTIATE_TEST_SUITE_P(Cuda, LayerNormCuda,
                         ::testing::Combine(::testing::ValuesIn(kLayerNormCases),
                                            ::testing::Values(DType::kF16, DType::kBF16)),
                         [](const auto& test) {
                           return name_of(std::get<0>(test.param).name, std::get<1>(test.param));
                         });

TEST(OpsCudaReasons, ActivationsAreOf16Bits) {
  Random random(1);
  GuardedMatrix y(2, 8);
  const LayerNormArgs args{.x = std::as_const(y).view(), .y = y.view()};
  EXPECT_EQ(why_unsupported(args, DeviceKind::kCuda), "x is f32, must be f16 or bf16");
  LayerNormArgs mixed = args;
  mixed.x.dtype = DType::kF16;
  mixed.y.dtype = DType::kBF16;
  EXPECT_THAT(why_unsupported(mixed, DeviceKind::kCuda), ::testing::HasSubstr("differ"));
}

}  // namespace
}  // namespace sluice::kernels
