// What a step costs beside its work.
#include "apps/profile/step_overhead.h"

#include <gtest/gtest.h>

namespace sluice::apps {
namespace {

TEST(StepOverhead, IsWhatGrowsWithTheNumberOfSteps) {
  // 100 sequences of 80 us in 13 steps of 8 and in 4 of 32, each step 70 us beside them.
  const double many = 100 * 80e-6 + 13 * 70e-6;
  const double few = 100 * 80e-6 + 4 * 70e-6;
  const double overhead = step_overhead_sec(many, 13, few, 4);
  EXPECT_NEAR(overhead, 70e-6, 1e-12);
  EXPECT_LT(step_overhead_sec(few, 13, many, 4), 0) << "noise is not hidden";

  const double work = 5e9;
  const double net = rate_without(overhead, 4, work, work / few);
  EXPECT_NEAR(net, work / (100 * 80e-6), 1);
  EXPECT_NEAR(work / net + 4 * overhead, few, 1e-12) << "the steps take what was measured";
}

}  // namespace
}  // namespace sluice::apps
