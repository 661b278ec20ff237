// The planner's properties over thousands of random problems.
#include <gtest/gtest.h>

#include "tests/policy/planner_properties.h"

namespace sluice::policy::testing {
namespace {

TEST(PlannerLong, NeverExceedsATier) { expect_no_tier_exceeded({1000, 5000}); }
TEST(PlannerLong, MoreMemoryIsNotSlower) { expect_monotone_in_memory({50'000, 2000}); }
TEST(PlannerLong, ReachesTheBestOfAGrid) { expect_best_of_grid({20'000, 200}, Grid::kCoarse); }
TEST(PlannerLong, ReachesTheBestOfAFineGrid) { expect_best_of_grid({30'000, 200}, Grid::kFine); }

}  // namespace
}  // namespace sluice::policy::testing
