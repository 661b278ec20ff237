// Times of single copies and products from a profile, and the products that a step launches.
#include "policy/rates.h"

#include <initializer_list>
#include <vector>

#include <gtest/gtest.h>

#include "core/units.h"
#include "policy/step_costs.h"
#include "tests/policy/shapes.h"

namespace sluice::policy {
namespace {

using testing::opt_spec;

TEST(Rates, CopiesTakeTheMeasuredTimeOfTheirPieces) {
  HardwareProfile hardware;
  hardware.link.h2d = {{64, 16}, {1024, 32}};  // 4.096 us and 32.768 us
  const Rates rates(hardware);
  EXPECT_NEAR(rates.copy_sec(Link::kH2d, 64_KiB, 64_KiB), 4.096e-6, 1e-12);
  EXPECT_NEAR(rates.copy_sec(Link::kH2d, 10 * 64_KiB, 64_KiB), 40.96e-6, 1e-11);
  EXPECT_NEAR(rates.copy_sec(Link::kH2d, 1024_KiB, 1024_KiB), 32.768e-6, 1e-11);
  // Half way between the two, and beyond the largest at its rate.
  EXPECT_NEAR(rates.copy_sec(Link::kH2d, 544_KiB, 544_KiB), 18.432e-6, 1e-11);
  EXPECT_NEAR(rates.copy_sec(Link::kH2d, 4096_KiB, 4096_KiB), 4 * 32.768e-6, 1e-11);
  EXPECT_GT(rates.copy_sec(Link::kH2d, 1, 1), 2e-6) << "the latency stays";
}

TEST(Rates, TheOverheadOfAGpuStepIsLargerBesideBulkCopies) {
  HardwareProfile hardware;
  hardware.overheads.gpu_usec = 10;
  hardware.overheads.gpu_beside_h2d_usec = 40;
  hardware.overheads.gpu_beside_d2h_usec = 20;
  const auto share = [&](std::initializer_list<LaneKind> working) {
    unsigned lanes = 1U << lane_index(LaneKind::kGpu);
    for (const LaneKind lane : working) lanes |= 1U << lane_index(lane);
    return Rates(hardware).overhead_share(LaneKind::kGpu, lanes);
  };
  EXPECT_DOUBLE_EQ(share({}), 1);
  EXPECT_DOUBLE_EQ(share({LaneKind::kH2d}), 0.25);
  EXPECT_DOUBLE_EQ(share({LaneKind::kD2h}), 0.5);
  EXPECT_DOUBLE_EQ(share({LaneKind::kH2d, LaneKind::kD2h}), 0.2) << "30 and 10 us more";
  EXPECT_DOUBLE_EQ(share({LaneKind::kH2dUrgent, LaneKind::kD2hUrgent, LaneKind::kCpu}), 1);
  hardware.overheads.gpu_beside_h2d_usec = 5;
  EXPECT_DOUBLE_EQ(share({LaneKind::kH2d}), 1) << "less than alone is as alone";
  hardware.overheads.gpu_usec = 0;
  EXPECT_DOUBLE_EQ(share({LaneKind::kD2h}), 1) << "nothing to slow";
}

TEST(Rates, ProductsAreBoundByWeightsAtFewRowsAndByOperationsAtMany) {
  HardwareProfile hardware;
  hardware.gpu.products = {{.rows = 1, .tflop_per_sec = 1}, {.rows = 100, .tflop_per_sec = 50}};
  const Rates rates(hardware);
  EXPECT_NEAR(rates.product_sec(Encoding::kDense, 1, 1'000'000), 2e-6, 1e-15);
  EXPECT_NEAR(rates.product_sec(Encoding::kDense, 100, 1'000'000), 4e-6, 1e-15);
  EXPECT_NEAR(rates.product_sec(Encoding::kDense, 1000, 1'000'000), 40e-6, 1e-15);
}

TEST(Rates, TheFasterKernelOfAFormatIsTaken) {
  HardwareProfile hardware;
  hardware.gpu.products = {{Encoding::kDense, ProductKernel::kFused, 1, 1, 0},
                           {Encoding::kBitmap, ProductKernel::kFused, 1, 2, 0},
                           {Encoding::kBitmap, ProductKernel::kFused, 64, 4, 0},
                           {Encoding::kBitmap, ProductKernel::kExpand, 1, 0.5, 0},
                           {Encoding::kBitmap, ProductKernel::kExpand, 64, 30, 0}};
  const Rates rates(hardware);
  EXPECT_NEAR(rates.product_sec(Encoding::kBitmap, 1, 1000), 1e-9, 1e-18);
  EXPECT_NEAR(rates.product_sec(Encoding::kBitmap, 64, 1000), 2 * 64 * 1000 / 30e12, 1e-18);
  EXPECT_GT(rates.product_sec(Encoding::kInt8, 1, 1000), rates.product_sec(Encoding::kDense, 1, 1000))
      << "not measured: expanded";
}

TEST(Rates, ProductsWithSmallMatricesHaveTheirOwnRates) {
  HardwareProfile hardware;
  const auto rate = [](double rows, double tflop_per_sec, double million_weights) {
    return ProductRate{.rows = rows, .tflop_per_sec = tflop_per_sec, .million_weights = million_weights};
  };
  // 5 and 15 us at one row, 40 and 80 us at 100.
  hardware.gpu.products = {rate(1, 2e7 / 5e6, 10), rate(100, 2e9 / 40e6, 10), rate(1, 8e7 / 15e6, 40),
                           rate(100, 8e9 / 80e6, 40)};
  const Rates rates(hardware);
  const auto usec = [&](std::int64_t rows, std::int64_t elements) {
    return 1e6 * rates.product_sec(Encoding::kDense, rows, elements);
  };
  EXPECT_NEAR(usec(1, 10'000'000), 5, 1e-9);
  EXPECT_NEAR(usec(1, 40'000'000), 15, 1e-9);
  EXPECT_NEAR(usec(1, 25'000'000), 10, 1e-9) << "on the line between both";
  EXPECT_NEAR(usec(100, 25'000'000), 60, 1e-9);
  EXPECT_NEAR(usec(1, 80'000'000), 30, 1e-9) << "at the rate of the largest";
  EXPECT_NEAR(usec(100, 1'000'000), 28, 1e-9) << "the line goes on below the smallest";
  EXPECT_NEAR(usec(50, 10'000'000), 5 + 35 * 49.0 / 99, 1e-9);

  hardware.gpu.products = {rate(1, 2e7 / 5e6, 10), rate(1, 8e7 / 60e6, 40)};
  EXPECT_NEAR(1e6 * Rates(hardware).product_sec(Encoding::kDense, 1, 1'000'000), 0.5, 1e-9)
      << "never less than the smallest size's rate gives";

  hardware.gpu.products = {rate(1, 2e7 / 60e6, 10), rate(1, 8e7 / 50e6, 40)};
  for (const std::int64_t elements : {20'000'000, 40'000'000, 41'000'000})
    EXPECT_NEAR(1e6 * Rates(hardware).product_sec(Encoding::kDense, 1, elements), 60, 1e-9)
        << "a larger matrix is no faster";
}

TEST(StepCosts, ProductsAreThoseThatAreLaunched) {
  const ModelSpec spec = opt_spec(1, 64, 4);
  const ModelProducts dense(spec);
  ASSERT_EQ(dense.kinds()[0].pre.size(), 1U);
  EXPECT_EQ(dense.kinds()[0].pre[0].elements, 3 * 64 * 64) << "q, k and v at once";
  EXPECT_EQ(dense.kinds()[0].pre[0].count, 1);
  ASSERT_EQ(dense.kinds()[0].post.size(), 2U);
  EXPECT_EQ(dense.kinds()[0].post[1].elements, 64 * 256);
  EXPECT_EQ(dense.kinds()[0].post[1].count, 2);

  const std::vector<Encoding> formats(model_tensors(spec).size(), Encoding::kBitmap);
  const ModelProducts sparse(spec, formats);
  ASSERT_EQ(sparse.kinds()[0].pre.size(), 1U);
  EXPECT_EQ(sparse.kinds()[0].pre[0].elements, 64 * 64);
  EXPECT_EQ(sparse.kinds()[0].pre[0].count, 3);
}

TEST(Rates, TransfersOfOneDirectionShareTheirLink) {
  HardwareProfile hardware;
  hardware.beside = {{LaneKind::kH2d, LaneKind::kD2h, 0.8}};
  hardware.beside_attention = {{4, 0.9, 0.7, 0.6}, {8, 0.7, 0.5, 0.4}};
  const Rates rates(hardware, 6);
  const auto bits = [](std::initializer_list<LaneKind> lanes) {
    unsigned mask = 0;
    for (const LaneKind kind : lanes) mask |= 1U << lane_index(kind);
    return mask;
  };
  using enum LaneKind;
  EXPECT_EQ(rates.share(kH2d, bits({kH2d})), 1);
  EXPECT_EQ(rates.share(kH2d, bits({kH2d, kH2dUrgent})), 0.5);
  EXPECT_EQ(rates.share(kH2dUrgent, bits({kH2d, kH2dUrgent})), 0.5);
  EXPECT_DOUBLE_EQ(rates.share(kH2d, bits({kH2d, kD2hUrgent, kD2h})), 0.8);
  EXPECT_EQ(rates.share(kD2h, bits({kH2d, kD2h})), 1);
  EXPECT_DOUBLE_EQ(rates.share(kH2d, bits({kH2d, kCpu})), 0.8);  // between 4 and 8 threads
  EXPECT_DOUBLE_EQ(rates.share(kCpu, bits({kH2d, kCpu})), 0.5);
  EXPECT_EQ(rates.share(kCpu, bits({kGpu, kCpu})), 1);
}

}  // namespace
}  // namespace sluice::policy
