// Requests of very different lengths: seats as long as the requests give the results that seats as long as
// the longest give, in less memory.
#include <gtest/gtest.h>

#include "tests/e2e/e2e.h"
#include "tests/e2e/small_model.h"

namespace sluice {
namespace {

std::int64_t reserved_pages(const testing::RunOutcome& outcome) {
  const PerTier<std::int64_t>& pages = outcome.shape.seats.pages_per_layer;
  return pages[Tier::kGpu] + pages[Tier::kCpu] + pages[Tier::kDisk];
}

TEST(Ragged, SeatsOfTheRequestsLengthsChangeNoResult) {
  const ModelSpec spec = testing::small_spec();
  const offload::ModelSource model = testing::synthetic(spec);
  for (const auto& percents : {std::vector<int>{100, 0, 100, 0, 100, 0},
                               {0, 100, 0, 100, 100, 0},
                               {50, 50, 30, 30, 0, 100},
                               {0, 0, 0, 0, 0, 0}}) {
    for (const bool cpu_attention : {false, true}) {
      const policy::Placement placement = testing::placed(percents, 2, 2, cpu_attention);
      const auto run = [&](testing::SeatLengths seats) {
        return testing::run_requests(model, placement, testing::ragged_requests(spec.vocab_size), nullptr,
                                     nullptr, 2, {}, seats);
      };
      const testing::RunOutcome longest = run(testing::SeatLengths::kLongest);
      const testing::RunOutcome by_length = run(testing::SeatLengths::kOfRequests);
      EXPECT_LT(reserved_pages(by_length), reserved_pages(longest));
      EXPECT_EQ(testing::first_difference(longest.results, by_length.results), "");
      EXPECT_TRUE(by_length.violations.empty()) << by_length.violations.front();
    }
  }
}

}  // namespace
}  // namespace sluice
