// What must hold of every plan, over ranges of random problems. The quick share of them and the thousands are
// two programs.
#pragma once

#include <cstdint>

namespace sluice::policy::testing {

struct Seeds {
  std::uint64_t first = 0, count = 0;
};

/// Plans keep every budget; refusals name missing bytes. Expects most problems to have a plan, and not all.
void expect_no_tier_exceeded(Seeds seeds);

/// With a quarter more memory, three times, no plan is slower by more than 2 %, and what fits still does. Of
/// the steps with a latency bound one in 200 may be slower, so none of fewer than 200.
void expect_monotone_in_memory(Seeds seeds);

/// How fine the grid is that a plan is compared with.
enum class Grid : std::uint8_t { kCoarse, kFine };

/// Of `count` problems from `first` on of which any placement of the grid fits, each plan predicts at least
/// 98 % of the best of the grid.
void expect_best_of_grid(Seeds seeds, Grid grid);

}  // namespace sluice::policy::testing
