// What rounds of measurement say of figures that were measured in turn.
#include "apps/profile/rounds.h"

#include <vector>

#include <gtest/gtest.h>

namespace sluice::apps {
namespace {

TEST(Rounds, MedianAndSpread) {
  const Measured measured = median_of({9, 10, 14});
  EXPECT_DOUBLE_EQ(measured.median, 10);
  EXPECT_DOUBLE_EQ(measured.spread_percent, 25);
}

TEST(Rounds, ASlowRoundDoesNotChangeHowFiguresCompare) {
  // 100 and 200 while all rounds are as fast as the first; three of five are slower, each in its own way,
  // and in each another one of the two lies at the median of its own values.
  const std::vector<std::vector<double>> values = {{100, 50, 80, 70, 100}, {200, 100, 160, 140, 200}};
  const std::vector<Measured> measured = compare_rounds(values);
  ASSERT_EQ(measured.size(), 2U);
  EXPECT_DOUBLE_EQ(measured[0].median, 80);
  EXPECT_DOUBLE_EQ(measured[1].median, 160);
  EXPECT_DOUBLE_EQ(measured[0].spread_percent, 50 * 50 / 80.0);
}

TEST(Rounds, ADisturbedFigureDoesNotChangeTheOthers) {
  // In each round another figure is measured while something else runs.
  const std::vector<std::vector<double>> values = {
      {50, 100, 100, 100, 100}, {200, 100, 200, 200, 200}, {400, 400, 200, 400, 400}};
  const std::vector<Measured> measured = compare_rounds(values);
  EXPECT_NEAR(measured[1].median / measured[0].median, 2, 1e-9);
  EXPECT_NEAR(measured[2].median / measured[0].median, 4, 1e-9);
}

TEST(Rounds, OneFigureIsItsMedian) {
  const std::vector<std::vector<double>> values = {{3, 1, 2}};
  EXPECT_DOUBLE_EQ(compare_rounds(values).front().median, 2);
}

}  // namespace
}  // namespace sluice::apps
