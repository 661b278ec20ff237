#include "policy/work_floor.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/policy/shapes.h"

namespace sluice::policy {
namespace {

constexpr MeasuredRates kRates{
    .h2d_bytes_per_sec = 55.3e9, .cpu_attention_bytes_per_sec = 115e9, .flops = 710e12};

/// OPT-30B in 16 GiB of GPU memory: 18 % of the weights there, KV in CPU memory.
RunShape opt_30b(std::int64_t gpu_batch_size, bool cpu_attention) {
  const ModelSpec spec = testing::opt_spec(48, 7168, 56);
  Placement placement;
  placement.percents = parse_percents({18, 82, 0, 100, 100, 0});
  placement.gpu_batch_size = gpu_batch_size;
  placement.num_gpu_batches = 2;
  placement.cpu_attention = cpu_attention;
  const Workload work{.max_prompt_len = 512, .max_gen_len = 32, .max_total_len = 544, .num_requests = 264};
  return make_run_shape(spec, testing::tensor_sizes(spec), placement, work, testing::test_traits());
}

std::vector<SequenceWork> same(std::int64_t count, std::int64_t prompt_len, std::int64_t generated) {
  return std::vector<SequenceWork>(static_cast<std::size_t>(count),
                                   {prompt_len, generated, Workload::seat_tokens(prompt_len, generated)});
}

// DESIGN section 9 for requests of one shape: B n / max(Tp, n T).
TEST(WorkFloor, OfRequestsOfOneShapeIsTheDesignsFormula) {
  const RunShape shape = opt_30b(44, true);
  const WorkFloor floor = work_floor(shape, same(264, 512, 32), kRates);
  EXPECT_EQ(floor.least_passes, 3 * 32);
  EXPECT_NEAR(264 * 32 / floor.sec(), 98, 1) << "the README's bound of the mixed run";
  EXPECT_EQ(floor.sec(), floor.h2d_sec);
  EXPECT_NEAR(floor.gpu_sec, 264 * (512 + 31) * 2 * 29.6e9 / 710e12, 0.5);
  const double kv_token = 48 * 7168 * 2 * 2;  // bytes of K and V in all layers
  EXPECT_NEAR(floor.cpu_sec, 264 * 31 * (512 + 16) * kv_token / 115e9, 1e-9);
}

TEST(WorkFloor, StreamedKvIsTheLinks) {
  const WorkFloor attended = work_floor(opt_30b(44, true), same(88, 512, 32), kRates);
  const WorkFloor streamed = work_floor(opt_30b(44, false), same(88, 512, 32), kRates);
  EXPECT_EQ(streamed.cpu_sec, 0);
  EXPECT_NEAR(streamed.h2d_sec, attended.h2d_sec + attended.cpu_sec * 115e9 / 55.3e9, 1e-6);
}

TEST(WorkFloor, PassesAreAsManyAsTheLongestTheSeatsOrThePagesNeed) {
  const RunShape shape = opt_30b(44, true);  // 88 seats of 9 pages
  ASSERT_EQ(shape.seats.pages_per_layer[Tier::kCpu], 88 * 9);
  std::vector<SequenceWork> work = same(10, 100, 7);
  work.push_back({.prompt_len = 5, .generated = 32, .seat_tokens = 36});
  EXPECT_EQ(work_floor(shape, work, kRates).least_passes, 32) << "the longest";
  EXPECT_EQ(work_floor(shape, same(200, 20, 30), kRates).least_passes, 69) << "6000 tokens, 88 seats";
  EXPECT_EQ(work_floor(shape, same(200, 1100, 30), kRates).least_passes, 137) << "6000 x 18 pages, 792 there";
  // Requests that stop early held the pages that they asked for.
  std::vector<SequenceWork> stopped = same(200, 500, 10);
  for (SequenceWork& one : stopped) one.seat_tokens = 1100;
  EXPECT_EQ(work_floor(shape, stopped, kRates).least_passes, 46);
}

TEST(WorkFloor, ARateThatIsNeededIsNotZero) {
  EXPECT_THROW(work_floor(opt_30b(44, true), same(1, 10, 2), {.h2d_bytes_per_sec = 1e9, .flops = 1e12}),
               Error);
  EXPECT_NO_THROW(work_floor(opt_30b(44, true), same(1, 10, 1), {.h2d_bytes_per_sec = 1e9, .flops = 1e12}));
}

}  // namespace
}  // namespace sluice::policy
