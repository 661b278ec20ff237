#include "kernels/ops/gather_rows.h"

#include <gmock/gmock.h>

#include "core/build_config.h"
#include "core/error.h"
#include "tests/kernels/kernel_support.h"

namespace sluice::kernels {
namespace {

using namespace testing;

TEST(GatherRows, CopiesTheNamedRowsInTheirOrder) {
  Random random(5);
  const GuardedMatrix x = GuardedMatrix::random(7, 13, 2, random);
  const std::vector<std::int32_t> rows{6, 0, 0, 3};
  GuardedMatrix y(4, 13, 1);
  ThreadPool pool(1);
  Stream stream(pool);
  gather_rows({.x = x.view(), .rows = rows, .y = y.view()}, stream);
  for (std::int64_t r = 0; r < 4; ++r) {
    for (std::int64_t c = 0; c < 13; ++c) EXPECT_EQ(y.at(r, c), x.at(rows[static_cast<std::size_t>(r)], c));
  }
  y.expect_guards_intact();
  gather_rows({.x = x.view(), .rows = {}, .y = y.view().slice_rows(0, 0)}, stream);
}

TEST(GatherRows, RefusesRowsOutsideXAndOtherTypes) {
  Random random(5);
  const GuardedMatrix x = GuardedMatrix::random(3, 4, 0, random);
  GuardedMatrix y(1, 4);
  ThreadPool pool(1);
  Stream stream(pool);
  for (const std::int32_t row : {-1, 3}) {
    const std::vector<std::int32_t> rows{row};
    try {
      gather_rows({.x = x.view(), .rows = rows, .y = y.view()}, stream);
      ADD_FAILURE() << "row " << row << " was accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kInternal);
      EXPECT_THAT(e.what(), ::testing::HasSubstr(fmt::format("row {} of 3 is wanted", row)));
    }
  }
  const std::vector<std::int32_t> rows{0};
  const GatherRowsArgs good{.x = x.view(), .rows = rows, .y = y.view()};
  EXPECT_EQ(why_unsupported(good, DeviceKind::kCpu), "");
  EXPECT_EQ(why_unsupported(good, DeviceKind::kCuda), kWithCuda ? "" : "this build has no CUDA device");
  GatherRowsArgs bad = good;
  bad.y.dtype = DType::kF16;
  EXPECT_EQ(why_unsupported(bad, DeviceKind::kCpu), "x is f32 and y f16");
  bad = good;
  bad.y.cols = 3;
  EXPECT_THROW(gather_rows(bad, stream), Error);
  stream.restrict_operands(y.bytes());
  EXPECT_THROW(gather_rows(good, stream), Error);
}

}  // namespace
}  // namespace sluice::kernels
