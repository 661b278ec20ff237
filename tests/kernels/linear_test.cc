#include "kernels/ops/linear.h"

#include <gmock/gmock.h>

#include "core/build_config.h"
#include "core/error.h"
#include "tests/kernels/kernel_support.h"
#include "tests/kernels/linear_cases.h"

namespace sluice::kernels {
namespace {

using namespace testing;

class Linear : public ::testing::TestWithParam<LinearCase> {};

/// Operands of one case, made from the case alone.
struct Operands {
  Random random;
  GuardedMatrix x, residual;
  DenseWeight weight, bias;
  explicit Operands(const LinearCase& c, std::uint64_t seed = 7)
      : random(seed),
        x(GuardedMatrix::random(c.m, c.k, c.padding, random)),
        residual(GuardedMatrix::random(c.m, c.n, c.padding, random)),
        weight(c.format, c.n, c.k, random),
        bias(c.format, 1, c.n, random) {}
  LinearArgs args(const LinearCase& c, GuardedMatrix& y) const {
    return {.x = x.view(),
            .weight = weight.view(),
            .bias = c.bias ? bias.vector() : ConstVectorView{},
            .epilogue = c.epilogue,
            .residual = c.residual ? residual.view() : ConstMatrixView{},
            .y = y.view()};
  }
};

TEST_P(Linear, IsCloseToTheReferenceOnEveryTarget) {
  const LinearCase& c = GetParam();
  const Operands operands(c);
  ThreadPool pool(2);
  Stream stream(pool);
  GuardedMatrix y(c.m, c.n, c.padding);
  const std::vector<Expected> expected = linear_ref(operands.args(c, y));
  for_each_target([&] {
    GuardedMatrix result(c.m, c.n, c.padding);
    linear(operands.args(c, result), stream);
    result.expect_near(expected);
    result.expect_guards_intact();
  });
}

TEST_P(Linear, GivesTheSameBitsForEachRowAloneAndForAnyThreads) {
  const LinearCase& c = GetParam();
  const Operands operands(c);
  for_each_target([&] {
    ThreadPool one(1);
    Stream serial(one);
    GuardedMatrix all(c.m, c.n, c.padding);
    linear(operands.args(c, all), serial);
    GuardedMatrix alone(c.m, c.n, c.padding);
    const LinearArgs args = operands.args(c, alone);
    for (std::int64_t r = 0; r < c.m; ++r) {
      LinearArgs row = args;
      row.x = args.x.slice_rows(r, 1);
      row.y = args.y.slice_rows(r, 1);
      if (c.residual) row.residual = args.residual.slice_rows(r, 1);
      linear(row, serial);
    }
    alone.expect_same_bits(all);
    for (const int threads : {2, 3, 5}) {
      ThreadPool pool(threads);
      Stream stream(pool);
      GuardedMatrix result(c.m, c.n, c.padding);
      linear(operands.args(c, result), stream);
      result.expect_same_bits(all);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Cpu, Linear, ::testing::ValuesIn(kLinearCases),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(LinearGroups, AnyGroupingOfRowsGivesTheSameBits) {
  const std::uint64_t seed = 20240607;
  SCOPED_TRACE(seed);
  Random random(seed);
  ThreadPool pool(2);
  Stream stream(pool);
  for (int round = 0; round < 20; ++round) {
    const LinearCase c{.name = "",
                       .m = between(random, 1, 150),
                       .n = between(random, 1, 120),
                       .k = between(random, 1, 1300),
                       .format = round % 2 == 0 ? kF16 : kBF16,
                       .bias = true,
                       .epilogue = static_cast<Epilogue>(round % 4),
                       .residual = round % 3 == 0};
    const Operands operands(c, seed + static_cast<std::uint64_t>(round));
    GuardedMatrix all(c.m, c.n);
    linear(operands.args(c, all), stream);
    GuardedMatrix grouped(c.m, c.n);
    const LinearArgs args = operands.args(c, grouped);
    for (std::int64_t first = 0; first < c.m;) {
      const std::int64_t rows = std::min(c.m - first, between(random, 1, 80));
      LinearArgs group = args;
      group.x = args.x.slice_rows(first, rows);
      group.y = args.y.slice_rows(first, rows);
      if (c.residual) group.residual = args.residual.slice_rows(first, rows);
      linear(group, stream);
      first += rows;
    }
    grouped.expect_same_bits(all);
  }
}

TEST(LinearErrors, OutputMayBeTheResidual) {
  const LinearCase c{.name = "", .m = 70, .n = 33, .k = 20, .residual = true};
  const Operands operands(c);
  ThreadPool pool(2);
  Stream stream(pool);
  GuardedMatrix apart(c.m, c.n);
  linear(operands.args(c, apart), stream);
  GuardedMatrix in_place = operands.residual;
  LinearArgs args = operands.args(c, in_place);
  args.residual = std::as_const(in_place).view();
  linear(args, stream);
  in_place.expect_same_bits(apart);
}

TEST(LinearErrors, RefusesWhatItCannotRunWithTheReason) {
  const LinearCase c{.name = "", .m = 2, .n = 3, .k = 4, .bias = true};
  const Operands operands(c);
  GuardedMatrix y(c.m, c.n);
  const LinearArgs good = operands.args(c, y);
  EXPECT_EQ(why_unsupported(good, DeviceKind::kCpu), "");
  EXPECT_THAT(why_unsupported(good, DeviceKind::kCuda),
              ::testing::HasSubstr(kWithCuda ? "x is f32, must be f16 or bf16" : "no CUDA device"));
  LinearArgs bad = good;
  bad.x.dtype = DType::kF16;
  EXPECT_EQ(why_unsupported(bad, DeviceKind::kCpu), "x is f16, must be f32");
  bad = good;
  bad.bias.dtype = DType::kF32;
  EXPECT_EQ(why_unsupported(bad, DeviceKind::kCpu), "bias is f32, must be f16 or bf16");
  bad = good;
  bad.weight.data = bad.weight.data.first(10);
  EXPECT_EQ(why_unsupported(bad, DeviceKind::kCpu), "weight [3, 4] has 10 bytes, must have 24");
  ThreadPool pool(1);
  Stream stream(pool);
  try {
    linear(bad, stream);
    ADD_FAILURE() << "a truncated weight was accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kUnsupported);
    EXPECT_THAT(e.what(), ::testing::HasSubstr("linear: weight [3, 4] has 10 bytes"));
  }
  bad = good;
  bad.x.cols = 3;
  EXPECT_THROW(linear(bad, stream), Error);
}

TEST(LinearErrors, RefusesEachOperandOutsideTheArena) {
  const LinearCase c{.name = "", .m = 2, .n = 3, .k = 4, .bias = true, .residual = true};
  const Operands operands(c);
  GuardedMatrix y(c.m, c.n);
  const LinearArgs outside = operands.args(c, y);
  OperandArena arena;
  LinearArgs inside = outside;
  inside.x = arena.put(outside.x);
  inside.weight = arena.put(outside.weight);
  inside.bias = arena.put(outside.bias);
  inside.residual = arena.put(outside.residual);
  inside.y = arena.put(outside.y);
  ThreadPool pool(1);
  Stream stream(pool);
  stream.restrict_operands(arena.bytes());
  EXPECT_NO_THROW(linear(inside, stream));
  const auto expect_refused = [&](auto member) {
    LinearArgs args = inside;
    args.*member = outside.*member;
    EXPECT_THROW(linear(args, stream), Error);
  };
  expect_refused(&LinearArgs::x);
  expect_refused(&LinearArgs::weight);
  expect_refused(&LinearArgs::bias);
  expect_refused(&LinearArgs::residual);
  expect_refused(&LinearArgs::y);
  // One element beyond the arena's end is outside too.
  LinearArgs args = inside;
  args.y.stride = 1 << 20;
  EXPECT_THROW(linear(args, stream), Error);
}

TEST(LinearGroup, GivesTheBitsOfEachLayerWhateverTheirShapes) {
  // Grouped-query attention: k and v have fewer features than q.
  Random random(3);
  const DenseWeight q(kF16, 48, 40, random);
  const DenseWeight k(kF16, 16, 40, random);
  const DenseWeight v(kF16, 16, 40, random);
  const GuardedMatrix x = GuardedMatrix::random(5, 40, 3, random);
  ThreadPool pool(2);
  Stream stream(pool);
  GuardedMatrix together(5, 80);
  GuardedMatrix apart(5, 80);
  const auto layers_of = [&](GuardedMatrix& y) {
    std::vector<LinearArgs> layers;
    std::int64_t first = 0;
    for (const DenseWeight* weight : {&q, &k, &v}) {
      const WeightView view = weight->view();
      layers.push_back({.x = x.view(), .weight = view, .y = y.view().slice_cols(first, view.rows)});
      first += view.rows;
    }
    return layers;
  };
  linear_group(layers_of(together), stream);
  for (const LinearArgs& layer : layers_of(apart)) linear(layer, stream);
  together.expect_same_bits(apart);
  together.expect_guards_intact();
  EXPECT_NO_THROW(linear_group({}, stream));
}

TEST(LinearEpilogue, GeluIsAccurateInTheTails) {
  // x W^T with k = 1 and weight 1 is x itself.
  Random random(1);
  const std::vector<Half> one{to_half(1.0F)};
  const std::int64_t count = 4001;
  GuardedMatrix x(count, 1);
  for (std::int64_t i = 0; i < count; ++i) x.at(i, 0) = static_cast<float>(i - 2000) / 100.0F;
  ThreadPool pool(1);
  Stream stream(pool);
  for (const Epilogue epilogue : {Epilogue::kRelu, Epilogue::kGelu, Epilogue::kGeluTanh}) {
    for_each_target([&] {
      GuardedMatrix y(count, 1);
      const LinearArgs args{.x = std::as_const(x).view(),
                            .weight = {kF16, std::as_bytes(std::span(one)), 1, 1},
                            .epilogue = epilogue,
                            .y = y.view()};
      linear(args, stream);
      y.expect_near(linear_ref(args));
    });
  }
}

}  // namespace
}  // namespace sluice::kernels
