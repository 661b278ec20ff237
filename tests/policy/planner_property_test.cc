// A share of the planner's properties that is quick; planner_long_test.cc has the thousands.
#include <gtest/gtest.h>

#include "tests/policy/planner_properties.h"

namespace sluice::policy::testing {
namespace {

TEST(PlannerProperty, NeverExceedsATier) { expect_no_tier_exceeded({0, 1000}); }
TEST(PlannerProperty, MoreMemoryIsNotSlower) { expect_monotone_in_memory({0, 100}); }
/// Of all workspaces from 250 to 420 tokens a few around 320 make the run 4 % faster.
TEST(PlannerProperty, MoreMemoryKeepsALuckyWorkspace) { expect_monotone_in_memory({51'128, 1}); }
TEST(PlannerProperty, ReachesTheBestOfAGrid) { expect_best_of_grid({10'000, 40}, Grid::kCoarse); }
/// Three requests, half of the KV cache on the GPU: with six seats all of theirs are.
TEST(PlannerProperty, LeavesSeatsEmpty) { expect_best_of_grid({20'124, 1}, Grid::kCoarse); }

}  // namespace
}  // namespace sluice::policy::testing
