#include <optional>

#include <gmock/gmock.h>

#include "core/error.h"
#include "tests/kernels/cuda/device_operands.h"
#include "tests/kernels/linear_cases.h"

namespace sluice::kernels {
namespace {

using namespace testing;

struct Variant {
  const char* name;
  bool f32_result = false;  // of cases without residual
  bool other_bias = false;  // bias of the other 16-bit type
  bool in_place = false;    // y is the residual
};
const Variant kVariants[] = {
    {"plain"}, {"f32_result", true}, {"other_bias", false, true}, {"in_place", false, false, true}};

/// A case's operands on both sides, made from the case alone.
struct Operands {
  Random random;
  DType dtype;
  DenseWeight weight, bias;
  DeviceMatrix x, residual;
  DeviceWeight device_weight, device_bias;

  Operands(CudaDeviceUnderTest& cuda, const LinearCase& c, const Variant& v = kVariants[0])
      : random(7),
        dtype(dtype_of(c.format)),
        weight(c.format, c.n, c.k, random),
        bias((c.format == kF16) != v.other_bias ? kF16 : kBF16, 1, c.n, random),
        x(cuda, dtype, GuardedMatrix::random(c.m, c.k, c.padding, random)),
        residual(cuda, dtype, GuardedMatrix::random(c.m, c.n, c.padding, random)),
        device_weight(cuda, weight),
        device_bias(cuda, bias) {}

  LinearArgs args(const LinearCase& c, const MatrixView& y) {
    return {.x = x.const_view(),
            .weight = device_weight.view(),
            .bias = c.bias ? device_bias.vector() : ConstVectorView{},
            .epilogue = c.epilogue,
            .residual = c.residual ? residual.const_view() : ConstMatrixView{},
            .y = y};
  }
  /// The same with everything on the host; of `y` only the shape counts.
  LinearArgs host_args(const LinearCase& c, const MatrixView& y) {
    LinearArgs result = args(c, y);
    result.x = x.const_host_view();
    result.weight = weight.view();
    if (c.bias) result.bias = bias.vector();
    if (c.residual) result.residual = residual.const_host_view();
    return result;
  }
};

class LinearCuda : public CudaTest, public ::testing::WithParamInterface<std::tuple<LinearCase, Variant>> {};

TEST_P(LinearCuda, IsCloseToTheReference) {
  const auto& [c, v] = GetParam();
  if ((v.f32_result && c.residual) || (v.in_place && !c.residual) || (v.other_bias && !c.bias)) return;
  Operands operands(*cuda, c, v);
  DeviceMatrix apart(*cuda, v.f32_result ? DType::kF32 : operands.dtype, c.m, c.n, c.padding);
  const LinearArgs host = operands.host_args(c, apart.host_view());
  const std::vector<Expected> expected = linear_ref(host);
  LinearArgs plain = host;
  plain.bias = {};
  plain.epilogue = Epilogue::kNone;
  plain.residual = {};
  const std::vector<Expected> product = linear_ref(plain);

  DeviceMatrix& y = v.in_place ? operands.residual : apart;
  linear(operands.args(c, y.view()), stream());

  // The reference's bound, four times: tensor cores cut instead of rounding (twice), after aligning the terms
  // of a step to the largest (twice). Where the product is finished elsewhere, it (with the residual, if it
  // has joined) is rounded to y's type first; the slopes of the epilogues are below 1.13, one more rounding
  // of their argument is far below the rest.
  const double unit = rounding(operands.dtype) * (v.f32_result ? 0 : 1) + rounding(DType::kF32);
  const auto tolerance = [&](const Expected& e, std::size_t i) {
    const auto at = static_cast<std::int64_t>(i);
    double joined = std::abs(product[i].value);
    if (c.residual)
      joined += std::abs(
          element(host.residual.data, host.residual.dtype, at / c.n * host.residual.stride + at % c.n));
    return 4 * e.tolerance + 1.2 * unit * joined + smallest_rounding(operands.dtype);
  };
  // The image of an operand written in place is read by the tolerance: compare after fetching into a copy.
  if (v.in_place) {
    std::vector<double> bounds;
    for (std::size_t i = 0; i < expected.size(); ++i) bounds.push_back(tolerance(expected[i], i));
    y.fetch();
    y.expect_near(expected, [&](const Expected&, std::size_t i) { return bounds[i]; });
  } else {
    y.fetch();
    y.expect_near(expected, tolerance);
  }
}

TEST_P(LinearCuda, GivesTheSameBitsAgain) {
  const auto& [c, v] = GetParam();
  if ((v.f32_result && c.residual) || v.in_place || (v.other_bias && !c.bias)) return;
  Operands operands(*cuda, c, v);
  const DType dtype = v.f32_result ? DType::kF32 : operands.dtype;
  DeviceMatrix first(*cuda, dtype, c.m, c.n, c.padding);
  DeviceMatrix second(*cuda, dtype, c.m, c.n, c.padding);
  linear(operands.args(c, first.view()), stream());
  linear(operands.args(c, second.view()), stream());
  first.fetch();
  second.fetch();
  second.expect_same_bits(first);
}

INSTANTIATE_TEST_SUITE_P(
    Cuda, LinearCuda, ::testing::Combine(::testing::ValuesIn(kLinearCases), ::testing::ValuesIn(kVariants)),
    [](const auto& test) {
      return std::string(std::get<0>(test.param).name) + "_" + std::get<1>(test.param).name;
    });

class LinearCudaRows : public CudaTest {};

// Three layers of one shape, their results side by side, with weights at equal distances and not.
TEST_F(LinearCudaRows, AGroupIsCloseToTheReferenceOfEachLayer) {
  constexpr std::int64_t kLayers = 3;
  for (const auto& [rows, out, in] : {std::array<std::int64_t, 3>{1, 512, 256},
                                      {7, 256, 512},
                                      {64, 1024, 1024},
                                      {300, 128, 320},
                                      {5, 40, 24}}) {
    for (const bool equal_distances : {true, false}) {
      SCOPED_TRACE(::testing::Message()
                   << rows << " rows, " << out << " x " << in << ", " << equal_distances);
      Random random(11);
      const DenseWeight weight(kF16, kLayers * out, in, random);
      const DenseWeight bias(kF16, 1, kLayers * out, random);
      const DeviceWeight device_weight(*cuda, weight);
      const DeviceWeight device_bias(*cuda, bias);
      DeviceMatrix x(*cuda, DType::kF16, GuardedMatrix::random(rows, in, 0, random));
      DeviceMatrix y(*cuda, DType::kF16, rows, kLayers * out);
      // Layer i reads the weights of `place`: in order, or the last two changed over.
      const auto layer = [&](std::int64_t i, const ConstMatrixView& from, const WeightView& weights,
                             const ConstVectorView& biases, const MatrixView& to) {
        const std::int64_t place = equal_distances || i == 0 ? i : kLayers - i;
        const auto bytes = static_cast<std::size_t>(out * in * 2);
        return LinearArgs{
            .x = from,
            .weight = {kF16, weights.data.subspan(static_cast<std::size_t>(place) * bytes, bytes), out, in},
            .bias = {biases.data + place * out * 2, biases.dtype, out},
            .y = to.slice_cols(i * out, out)};
      };
      std::vector<LinearArgs> layers;
      for (std::int64_t i = 0; i < kLayers; ++i)
        layers.push_back(layer(i, x.const_view(), device_weight.view(), device_bias.vector(), y.view()));
      linear_group(layers, stream());
      y.fetch();
      std::vector<Expected> expected(static_cast<std::size_t>(rows * kLayers * out));
      for (std::int64_t i = 0; i < kLayers; ++i) {
        const std::vector<Expected> one =
            linear_ref(layer(i, x.const_host_view(), weight.view(), bias.vector(), y.host_view()));
        for (std::int64_t r = 0; r < rows; ++r)
          std::copy_n(one.begin() + r * out, out, expected.begin() + (r * kLayers + i) * out);
      }
      // As for one layer: four times the reference's bound, and the rounding to fp16.
      y.expect_near(expected, [&](const Expected& e, std::size_t) {
        return 4 * e.tolerance + rounding(DType::kF16) * std::abs(e.value) + smallest_rounding(DType::kF16);
      });
    }
  }
}

TEST_F(LinearCudaRows, ABatchInvariantRowDoesNotSeeItsNeighbours) {
  stream().set_batch_invariance(BatchInvariance::kOn);
  struct Layer {
    std::int64_t out, in;
    WeightFormat format;
    Epilogue epilogue;
    bool residual, f32_result;
  };
  for (const Layer& layer : {Layer{2048, 1024, kF16, Epilogue::kRelu, false, false},
                             Layer{1024, 4096, kBF16, Epilogue::kNone, true, false},
                             Layer{1000, 768, kF16, Epilogue::kGelu, true, false},
                             Layer{5027, 512, kF16, Epilogue::kNone, false, true},
                             Layer{77, 35, kF16, Epilogue::kNone, true, false}}) {
    const LinearCase c{.name = "",
                       .m = 200,
                       .n = layer.out,
                       .k = layer.in,
                       .format = layer.format,
                       .bias = !layer.f32_result,
                       .epilogue = layer.epilogue,
                       .residual = layer.residual};
    Operands operands(*cuda, c);
    const DType dtype = layer.f32_result ? DType::kF32 : operands.dtype;
    DeviceMatrix alone(*cuda, dtype, c.m, c.n);
    const auto run_rows = [&](const LinearArgs& all, std::int64_t first, std::int64_t rows) {
      LinearArgs args = all;
      args.x = all.x.slice_rows(first, rows);
      args.y = all.y.slice_rows(first, rows);
      if (c.residual) args.residual = all.residual.slice_rows(first, rows);
      linear(args, stream());
    };
    for (std::int64_t r = 0; r < c.m; ++r) run_rows(operands.args(c, alone.view()), r, 1);
    alone.fetch();
    for (const std::int64_t group : {2, 7, 64, 129, 200}) {
      SCOPED_TRACE(fmt::format("{} x {}, {} rows a call", layer.out, layer.in, group));
      DeviceMatrix together(*cuda, dtype, c.m, c.n);
      for (std::int64_t r = 0; r < c.m; r += group)
        run_rows(operands.args(c, together.view()), r, std::min(group, c.m - r));
      together.fetch();
      together.expect_same_bits(alone);
    }
  }
}

// The shapes of a large model, whose results are compared with each other only.
TEST_F(LinearCudaRows, ABatchInvariantRowOfALargeLayerDoesNotSeeItsNeighbours) {
  stream().set_batch_invariance(BatchInvariance::kOn);
  struct Layer {
    std::int64_t out, in, rows;
    bool f32_result;
    std::vector<std::int64_t> groups;
  };
  for (const Layer& layer : {Layer{7168, 7168, 2048, false, {1, 129, 200, 1000}},
                             Layer{50272, 2048, 40, true, {1, 2, 5, 16, 33}}}) {
    const DType dtype = layer.f32_result ? DType::kF32 : DType::kF16;
    const std::int64_t row_bytes = layer.out * dtype_bytes(dtype);
    const DeviceMemory weight = random_halves(*cuda, layer.out * layer.in * 2);
    const DeviceMemory bias = random_halves(*cuda, layer.out * 2);
    const DeviceMemory x = random_halves(*cuda, layer.rows * layer.in * 2);
    const DeviceMemory y = cuda->device().allocate(layer.rows * row_bytes);
    const auto run_in = [&](std::int64_t group) {
      stream().fill(y.bytes, std::byte{0xFF});
      for (std::int64_t first = 0; first < layer.rows; first += group) {
        const std::int64_t rows = std::min(group, layer.rows - first);
        linear({.x = {x.bytes.data() + first * layer.in * 2, DType::kF16, rows, layer.in, layer.in},
                .weight = {kF16, weight.bytes, layer.out, layer.in},
                .bias = layer.f32_result ? ConstVectorView{}
                                         : ConstVectorView{bias.bytes.data(), DType::kF16, layer.out},
                .y = {y.bytes.data() + first * row_bytes, dtype, rows, layer.out, layer.out}},
               stream());
      }
      std::vector<std::byte> result(y.bytes.size());
      cuda->fetch(y, result);
      return result;
    };
    const std::vector<std::byte> together = run_in(layer.rows);
    for (const std::int64_t group : layer.groups) {
      SCOPED_TRACE(fmt::format("{} x {}, {} rows a call", layer.out, layer.in, group));
      const std::vector<std::byte> apart = run_in(group);
      const auto different = std::mismatch(apart.begin(), apart.end(), together.begin()).first;
      EXPECT_TRUE(different == apart.end()) << "row " << (different - apart.begin()) / row_bytes;
    }
  }
}

// Grouped-query attention: k and v have fewer features than q, which must not become one product with them.
TEST_F(LinearCudaRows, AGroupOfUnequalLayersIsCloseToTheReferenceOfEachLayer) {
  const std::vector<std::int64_t> outs = {512, 128, 128};
  constexpr std::int64_t kIn = 256;
  for (const std::int64_t rows : {1, 64}) {
    SCOPED_TRACE(rows);
    Random random(12);
    const DenseWeight weight(kF16, 768, kIn, random);
    const DenseWeight bias(kF16, 1, 768, random);
    const DeviceWeight device_weight(*cuda, weight);
    const DeviceWeight device_bias(*cuda, bias);
    DeviceMatrix x(*cuda, DType::kF16, GuardedMatrix::random(rows, kIn, 0, random));
    DeviceMatrix y(*cuda, DType::kF16, rows, 768);
    const auto layers_of = [&](const ConstMatrixView& from, const WeightView& weights,
                               const ConstVectorView& biases, const MatrixView& to) {
      std::vector<LinearArgs> layers;
      std::int64_t first = 0;
      for (const std::int64_t out : outs) {
        layers.push_back({.x = from,
                          .weight = {kF16,
                                     weights.data.subspan(static_cast<std::size_t>(first * kIn * 2),
                                                          static_cast<std::size_t>(out * kIn * 2)),
                                     out, kIn},
                          .bias = {biases.data + first * 2, biases.dtype, out},
                          .y = to.slice_cols(first, out)});
        first += out;
      }
      return layers;
    };
    linear_group(layers_of(x.const_view(), device_weight.view(), device_bias.vector(), y.view()), stream());
    y.fetch();
    std::vector<Expected> expected(static_cast<std::size_t>(rows * 768));
    std::int64_t first = 0;
    for (const LinearArgs& layer :
         layers_of(x.const_host_view(), weight.view(), bias.vector(), y.host_view())) {
      const std::vector<Expected> one = linear_ref(layer);
      for (std::int64_t r = 0; r < rows; ++r)
        std::copy_n(one.begin() + r * layer.y.cols, layer.y.cols, expected.begin() + r * 768 + first);
      first += layer.y.cols;
    }
    y.expect_near(expected, [&](const Expected& e, std::size_t) {
      return 4 * e.tolerance + rounding(DType::kF16) * std::abs(e.value) + smallest_rounding(DType::kF16);
    });
  }
}

TEST_F(LinearCudaRows, AProductLargerThanTheWorkspaceIsFinishedInParts) {
  // 8300 rows of 4096 columns are 65 MiB; the product's half of the workspace has 32, so the last part is
  // short.
  const LinearCase c{.name = "",
                     .m = 8300,
                     .n = 4096,
                     .k = 1,
                     .format = kF16,
                     .epilogue = Epilogue::kRelu,
                     .residual = true};
  Operands operands(*cuda, c);
  std::vector<double> residual;  // y is its place: no row may be read after it was written
  const auto for_some = [&](auto visit) {
    for (std::int64_t r = 0; r < c.m; r += 97) {
      for (std::int64_t i = 0; i < c.n; i += 13) visit(r, i);
    }
  };
  for_some([&](std::int64_t r, std::int64_t i) { residual.push_back(operands.residual.at(r, i)); });
  linear(operands.args(c, operands.residual.view()), stream());
  operands.residual.fetch();
  std::size_t at = 0;
  for_some([&](std::int64_t r, std::int64_t i) {
    const double product = operands.x.at(r, 0) * element(operands.weight.view().data.data(), DType::kF16, i);
    const double expected = std::max(product, 0.0) + residual[at++];
    EXPECT_NEAR(operands.residual.at(r, i), expected,
                rounding(DType::kF16) * (std::abs(product) + 2 * std::abs(expected)) + 1e-7)
        << r << ' ' << i;
  });
}

TEST(LinearCudaReasons, NamesTheTypesThatDoNotGoTogether) {
  Random random(1);
  GuardedMatrix y(2, 3);
  const GuardedMatrix x(2, 4);
  const DenseWeight weight(kBF16, 3, 4, random);
  LinearArgs args{.x = x.view(), .weight = weight.view(), .y = y.view()};
  EXPECT_EQ(why_unsupported(args, DeviceKind::kCuda), "x is f32, must be f16 or bf16");
  args.x.dtype = DType::kF16;
  EXPECT_EQ(why_unsupported(args, DeviceKind::kCuda), "x is f16 and weight dense_bf16, must be one type");
  args.x.dtype = DType::kBF16;
  EXPECT_EQ(why_unsupported(args, DeviceKind::kCuda), "");
  args.residual = std::as_const(y).view();
  EXPECT_EQ(why_unsupported(args, DeviceKind::kCuda), "y is f32, which takes no residual");
  args.y.dtype = DType::kF16;
  EXPECT_EQ(why_unsupported(args, DeviceKind::kCuda), "y is f16, must be bf16 or f32");
  args.y.dtype = DType::kBF16;
  EXPECT_EQ(why_unsupported(args, DeviceKind::kCuda), "residual is f32, must be bf16");
}

}  // namespace
}  // namespace sluice::kernels
