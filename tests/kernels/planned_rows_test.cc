#include "kernels/device/planned_rows.h"

#include <gtest/gtest.h>

namespace sluice::kernels {
namespace {

TEST(PlannedRows, AreFewAndNeverFewerThanTheRows) {
  std::int64_t distinct = 0;
  std::int64_t before = 0;
  for (std::int64_t rows = 1; rows <= 8192; ++rows) {
    const std::int64_t planned = planned_rows(rows);
    ASSERT_GE(planned, rows);
    ASSERT_GE(planned, before);
    ASSERT_EQ(planned_rows(planned), planned);  // a warm-up at this count chooses for this count
    distinct += planned != before;
    before = planned;
  }
  EXPECT_EQ(distinct, 1 + 8 + 6);  // one row, to 128 in steps of 16, to 8192 by doubling
}

}  // namespace
}  // namespace sluice::kernels
