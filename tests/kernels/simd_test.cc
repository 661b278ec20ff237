#include "kernels/device/cpu/simd.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
// clang-format off: this order, as the first says
#include "hwy/targets.h"
#include "kernels/device/cpu/simd_targets.h"
// clang-format on

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

TEST(Simd, AskingDoesNotChangeTheTargetInUse) {
  const auto in_use = [] { return hwy::GetChosenTarget().GetIndex(); };
  for (const std::string& name : simd_targets()) {
    force_simd_target(name);
    const std::size_t index = in_use();
    EXPECT_EQ(simd_target(), name);
    EXPECT_EQ(in_use(), index);
    EXPECT_FALSE(simd_targets().empty());
    EXPECT_EQ(in_use(), index);
  }
  force_simd_target({});
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
