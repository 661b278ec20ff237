#include "kernels/device/cpu/simd.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace sluice::kernels {
namespace {

TEST(Simd, ForcesEachTargetAndGoesBackToTheBest) {
  const std::vector<std::string> targets = simd_targets();
  ASSERT_FALSE(targets.empty());
  EXPECT_EQ(simd_target(), targets.front());
  for (const std::string& name : targets) {
    force_simd_target(name);
    EXPECT_EQ(simd_target(), name);
  }
  force_simd_target({});
  EXPECT_EQ(simd_target(), targets.front());
}

TEST(Simd, RefusesAnUnknownTargetAndNamesTheKnown) {
  try {
    force_simd_target("AVX9");
    ADD_FAILURE() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kUnsupported);
    EXPECT_THAT(e.what(), ::testing::HasSubstr("no SIMD target 'AVX9'"));
    EXPECT_THAT(e.fix(), ::testing::HasSubstr(simd_targets().front()));
  }
}

}  // namespace
}  // namespace sluice::kernels
