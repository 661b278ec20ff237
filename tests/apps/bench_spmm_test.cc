// `sluice bench spmm`: what its options mean, its table, CSV and means. Measuring needs a GPU
// (tests/kernels/cuda).
#include "apps/bench_spmm.h"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/spmm_report.h"
#include "core/error.h"

namespace sluice::apps {
namespace {

using kernels::SpmmShape;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(SpmmPlan, IsTheIssuesTableByDefault) {
  SpmmOptions options;
  options.cusparse_rows = {16};
  const SpmmPlan plan = plan_spmm(options);
  ASSERT_EQ(plan.shapes.size(), 8U);
  EXPECT_EQ(plan.shapes[0], (SpmmShape{7168, 7168}));
  EXPECT_EQ(plan.shapes[7], (SpmmShape{49152, 12288}));
  EXPECT_THAT(plan.rows, ElementsAre(8, 16, 32, 64, 128, 256, 512));
  EXPECT_THAT(plan.cusparse_rows, ElementsAre(16));
  EXPECT_THAT(plan.sparsities, ElementsAre(0.5, 0.6, 0.7, 0.8, 0.9));
  EXPECT_THAT(plan.sparse, ElementsAre(Encoding::kTiledCsl, Encoding::kBankCsl, Encoding::kPairs24,
                                       Encoding::kBitmap, Encoding::kBitmapInt8, Encoding::kBitmapInt4));
  EXPECT_THAT(plan.quantised, ElementsAre(Encoding::kInt8, Encoding::kInt4G64));
  EXPECT_EQ(plan.samples, 11);
}

TEST(SpmmPlan, OfQuickIsShortButWhatIsGivenStays) {
  SpmmOptions options;
  options.rows = {64, 8, 64};
  options.quick = true;
  const SpmmPlan plan = plan_spmm(options);
  EXPECT_EQ(plan.shapes.size(), 2U);
  EXPECT_THAT(plan.rows, ElementsAre(8, 64));
  EXPECT_EQ(plan.samples, 5);
  EXPECT_TRUE(plan.cusparse_rows.empty());
}

TEST(SpmmPlan, TakesShapesAndModels) {
  SpmmOptions options;
  options.shapes = {"300x17", "opt-30b", "7168x7168"};
  const SpmmPlan plan = plan_spmm(options);
  EXPECT_THAT(plan.shapes, ElementsAre(SpmmShape{300, 17}, SpmmShape{21504, 7168}, SpmmShape{7168, 7168},
                                       SpmmShape{28672, 7168}, SpmmShape{7168, 28672}));
  options.shapes = {"opt"};
  EXPECT_EQ(plan_spmm(options).shapes.size(), 9U * 4U);
}

TEST(SpmmPlan, SortsFormatsByWhetherZerosMatter) {
  SpmmOptions options;
  options.formats = {"int4_g64", "bank_csl", "bitmap_int4"};
  const SpmmPlan plan = plan_spmm(options);
  EXPECT_THAT(plan.sparse, ElementsAre(Encoding::kBankCsl, Encoding::kBitmapInt4));
  EXPECT_THAT(plan.quantised, ElementsAre(Encoding::kInt4G64));
  options.formats = {"all"};
  EXPECT_EQ(plan_spmm(options).sparse.size() + plan_spmm(options).quantised.size() + 1,
            all_encodings().size());
}

TEST(SpmmPlan, NamesWhatMakesNoSense) {
  struct Case {
    const char* named;
    void (*set)(SpmmOptions& options);
  };
  for (const Case& c : {Case{"'7168'", [](SpmmOptions& o) { o.shapes = {"7168"}; }},
                        Case{"'0x7'", [](SpmmOptions& o) { o.shapes = {"0x7"}; }},
                        Case{"'7x7x7'", [](SpmmOptions& o) { o.shapes = {"7x7x7"}; }},
                        Case{"'opt-31b'", [](SpmmOptions& o) { o.shapes = {"opt-31b"}; }},
                        Case{"'csr'", [](SpmmOptions& o) { o.formats = {"csr"}; }},
                        Case{"'dense'", [](SpmmOptions& o) { o.formats = {"dense"}; }},
                        Case{"--rows: 0",
                             [](SpmmOptions& o) {
                               o.rows = {8, 0};
                             }},
                        Case{"--rows: 5000", [](SpmmOptions& o) { o.rows = {5000}; }},
                        Case{"--sparsity: 1", [](SpmmOptions& o) { o.sparsities = {1.0}; }},
                        Case{"--sparsity: -0.5", [](SpmmOptions& o) { o.sparsities = {-0.5}; }}}) {
    SpmmOptions options;
    c.set(options);
    try {
      plan_spmm(options);
      ADD_FAILURE() << c.named << " was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kInvalidArgument);
      EXPECT_THAT(error.what(), HasSubstr(c.named));
    }
  }
}

const kernels::SpmmDeviceRates kRates{.copy_bytes_per_sec = 1e12, .product_flops_per_sec = 1e14};

SpmmRow row_of(const char* product, SpmmShape shape, double microseconds, double speedup) {
  SpmmRow row;
  row.shape = shape;
  row.n = 16;
  row.sparsity = 0.8;
  row.format = "tiled_csl";
  row.product = product;
  row.kind = SpmmKind::kFused;
  row.timing.sec = row.timing.low_sec = row.timing.high_sec = microseconds * 1e-6;
  row.stored_bytes = 1000000;
  row.speedup = speedup;
  return row;
}

TEST(SpmmReport, FloorIsTheSlowerOfBytesAndMultiplyAdds) {
  SpmmRow row = row_of("a", {1000, 2000}, 10, 2);
  EXPECT_DOUBLE_EQ(moved_bytes(row), 1000000 + 2 * 16 * 3000);
  EXPECT_DOUBLE_EQ(floor_sec(row, kRates), moved_bytes(row) / 1e12);
  row.n = 512;
  EXPECT_DOUBLE_EQ(floor_sec(row, kRates), 2.0 * 512 * 1000 * 2000 / 1e14);
  row.kind = SpmmKind::kExpansion;
  row.n = 0;
  EXPECT_DOUBLE_EQ(moved_bytes(row), 1000000 + 2 * 1000 * 2000);
}

TEST(SpmmReport, MeansAreGeometricAndBestIsTakenShapeByShape) {
  const SpmmShape a{1000, 2000};
  const SpmmShape b{3000, 2000};
  const std::vector<SpmmRow> rows = {row_of("first", a, 10, 2), row_of("first", b, 40, 8),
                                     row_of("second", a, 20, 1), row_of("second", b, 20, 16)};
  const std::string text = summary(rows, kRates);
  EXPECT_THAT(text, HasSubstr("Geometric means over 2 shapes"));
  EXPECT_THAT(text, ::testing::ContainsRegex("first, N 16 +4\\.00\n"));
  EXPECT_THAT(text, ::testing::ContainsRegex("second, N 16 +4\\.00\n"));
  EXPECT_THAT(text, ::testing::ContainsRegex("best fused, N 16 +5\\.66\n"));  // 2 and 16
  EXPECT_THAT(text, ::testing::ContainsRegex(" 0\\.80\n"));
}

TEST(SpmmReport, LeavesOutWhatIsWrongOrLossyOrNotMeasured) {
  const SpmmShape a{1000, 2000};
  std::vector<SpmmRow> rows = {row_of("good", a, 10, 2), row_of("wrong", a, 1, 20),
                               row_of("absent", a, 1, 20), row_of("lossy", a, 1, 20)};
  rows[1].timing.worst_error = 1.5;
  rows[2].timing.why_not = "no such device";
  rows[3].lossless = false;
  rows.push_back(row_of("good", {3000, 2000}, 10, 2));
  rows.back().timing.worst_error = std::numeric_limits<double>::infinity();
  const std::string text = summary(rows, kRates);
  EXPECT_THAT(text, ::testing::ContainsRegex("best fused, N 16 +2\\.00 of 1\n"));
  EXPECT_THAT(text, ::testing::ContainsRegex("lossy, N 16 +20\\.00 of 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("wrong")));
  EXPECT_THAT(text, Not(HasSubstr("absent")));
  EXPECT_THAT(table_line(rows[1], kRates), HasSubstr("WRONG"));
  EXPECT_THAT(table_line(rows[2], kRates), HasSubstr("not measured: no such device"));
}

TEST(SpmmReport, CsvHasAColumnForEachNameOfItsHead) {
  const auto columns = [](const std::string& line) { return std::ranges::count(line, ','); };
  SpmmRow row = row_of("a", {1000, 2000}, 10, 2);
  EXPECT_EQ(csv_line(row, kRates),
            "1000,2000,16,0.8,tiled_csl,a,10.000,10.000,10.000,1000000,0.5000,0.1000,0.1096,2.0000,0.000,\n");
  EXPECT_EQ(columns(csv_line(row, kRates)), columns(csv_head()));
  row.timing.why_not = "libcusparse.so.12: \"not found\"";
  EXPECT_EQ(csv_line(row, kRates),
            "1000,2000,16,0.8,tiled_csl,a,,,,1000000,,,,,,\"libcusparse.so.12: \"\"not found\"\"\"\n");
  EXPECT_EQ(columns(csv_line(row, kRates)), columns(csv_head()));
}

}  // namespace
}  // namespace sluice::apps
