// The planner's properties over thousands of random problems.
#include <gtest/gtest.h>

#include "tests/policy/planner_properties.h"

namespace sluice::policy::testing {
namespace {

TEST(PlannerLong, NeverExceedsATier) { expect_no_tier_exceeded({1000, 5000}); }

}  // namespace
}  // namespace sluice::policy::testing
