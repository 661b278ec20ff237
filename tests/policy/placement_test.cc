#include <algorithm>

#include <gtest/gtest.h>

#include "core/error.h"
#include "policy/memory_plan.h"
#include "tests/policy/shapes.h"

namespace sluice::policy {
namespace {

using testing::opt_spec;
using testing::tensor_sizes;

std::int64_t largest(const std::vector<TensorSize>& sizes) {
  std::int64_t most = 0;
  for (const TensorSize& t : sizes) most = std::max(most, t.bytes);
  return most;
}

// "Percent means percent": the achieved share is within one tensor of the asked one, over all splits.
TEST(PlaceWeights, ShareIsWithinOneTensorOnOpt30b) {
  const std::vector<TensorSize> sizes = tensor_sizes(opt_spec(48, 7168, 56));
  std::int64_t total = 0;
  for (const TensorSize& t : sizes) total += t.bytes;
  for (int gpu = 0; gpu <= 100; ++gpu) {
    for (int cpu = 0; cpu <= 100 - gpu; ++cpu) {
      const PerTier<int> percent{{gpu, cpu, 100 - gpu - cpu}};
      const std::vector<Tier> tiers = place_weights(sizes, percent);
      PerTier<std::int64_t> placed{};
      for (std::size_t i = 0; i < sizes.size(); ++i) placed[tiers[i]] += sizes[i].bytes;
      for (Tier tier : kTiers) {
        const double asked = static_cast<double>(total) * percent[tier] / 100;
        ASSERT_LE(std::abs(static_cast<double>(placed[tier]) - asked), static_cast<double>(largest(sizes)))
            << gpu << ' ' << cpu << ' ' << tier_name(tier);
        if (percent[tier] == 0) {
          ASSERT_EQ(placed[tier], 0) << gpu << ' ' << cpu << ' ' << tier_name(tier);
        }
      }
    }
  }
}

// The bytes that layers stream differ by at most two of a layer's tensors, so that no layer stalls the
// pipeline.
TEST(PlaceWeights, StreamsEvenly) {
  const ModelSpec spec = opt_spec(48, 7168, 56);
  const std::vector<TensorSize> sizes = tensor_sizes(spec);
  for (int gpu = 5; gpu <= 95; gpu += 5) {
    const std::vector<Tier> tiers = place_weights(sizes, {{gpu, 100 - gpu, 0}});
    std::vector<std::int64_t> streamed(static_cast<std::size_t>(spec.num_layers + 2));
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      if (tiers[i] == Tier::kCpu) streamed[static_cast<std::size_t>(sizes[i].unit)] += sizes[i].bytes;
    }
    const auto [low, high] = std::minmax_element(streamed.begin() + 1, streamed.end() - 1);
    EXPECT_LE(*high - *low, 2 * spec.ffn_dim * spec.hidden_dim * 2) << gpu;
  }
}

TEST(SeatMap, SeatsAreAsLongAsTheRequestsThatSitInThem) {
  Placement placement;
  placement.gpu_batch_size = 4;
  placement.num_gpu_batches = 2;
  Workload work;
  EXPECT_EQ(work.seat_tokens(64, 1), 64);
  EXPECT_EQ(work.seat_tokens(64, 2), 65);
  for (int i = 0; i < 90; ++i) work.add_request(100, 10);  // 2 pages for 10 passes each
  for (int i = 0; i < 5; ++i) work.add_request(600, 60);   // 11 pages: a fourth of the demand
  EXPECT_EQ(work.seat_demand.size(), 11U);
  EXPECT_EQ(work.seat_demand[1], 900);
  EXPECT_EQ(work.seat_demand[10], 300);
  // 8 seats: three quarters of the time are for the short ones.
  EXPECT_EQ(seat_pages(placement, work), (std::vector<std::int64_t>{2, 2, 2, 11, 2, 2, 2, 11}));
  work.seat_demand.clear();
  EXPECT_EQ(seat_pages(placement, work), std::vector<std::int64_t>(8, 11));
  placement.gpu_batch_size = placement.num_gpu_batches = 1;
  work.add_request(1, 1);
  EXPECT_EQ(seat_pages(placement, work), std::vector<std::int64_t>{11}) << "the only seat takes any request";
}

TEST(SeatMap, SharesHoldForSeatsOfDifferentLengths) {
  Placement placement;
  placement.gpu_batch_size = 6;
  placement.num_gpu_batches = 2;
  placement.percents.kv_cache = {{30, 50, 20}};
  const std::vector<std::int64_t> pages = {1, 2, 3, 5, 8, 21, 1, 2, 4, 6, 8, 19};
  const SeatMap map = make_seat_map(placement, pages);
  for (Tier tier : kTiers) {
    EXPECT_NEAR(static_cast<double>(map.pages_per_layer[tier]), 0.8 * placement.percents.kv_cache[tier], 1.0);
  }
  for (std::size_t i = 0; i < pages.size(); ++i) EXPECT_EQ(map.seats[i].total(), pages[i]) << i;
}

TEST(SeatMap, SharesAreOfReservedPagesAndAtMostOneSeatIsSplitPerBoundary) {
  for (std::int64_t gbs : {1, 3, 16}) {
    for (std::int64_t batches : {1, 2, 3}) {
      for (std::int64_t pages : {1, 5, 9}) {
        for (int gpu = 0; gpu <= 100; gpu += 10) {
          for (int cpu = 0; cpu <= 100 - gpu; cpu += 10) {
            Placement placement;
            placement.gpu_batch_size = gbs;
            placement.num_gpu_batches = batches;
            placement.percents.kv_cache = {{gpu, cpu, 100 - gpu - cpu}};
            const std::vector<std::int64_t> of_seats(static_cast<std::size_t>(gbs * batches), pages);
            const SeatMap map = make_seat_map(placement, of_seats);
            ASSERT_EQ(map.seats.size(), static_cast<std::size_t>(gbs * batches));
            const std::int64_t total = gbs * batches * pages;
            for (Tier tier : kTiers) {
              const int asked = placement.percents.kv_cache[tier];
              EXPECT_NEAR(static_cast<double>(map.pages_per_layer[tier]),
                          static_cast<double>(total) * asked / 100, 2.0)  // a page per tier boundary
                  << tier_name(tier) << " of " << gpu << ' ' << cpu << ", " << gbs << 'x' << batches << 'x'
                  << pages;
              if (asked == 0) {
                EXPECT_EQ(map.pages_per_layer[tier], 0);
              }
            }
            for (std::int64_t b = 0; b < batches; ++b) {
              int split = 0;
              for (std::int64_t i = 0; i < gbs; ++i) {
                const SeatPages& seat = map.seats[static_cast<std::size_t>(b * gbs + i)];
                ASSERT_EQ(seat.total(), pages);
                const int tiers = (seat.count[Tier::kGpu] > 0) + (seat.count[Tier::kCpu] > 0) +
                                  (seat.count[Tier::kDisk] > 0);
                split += tiers - 1;
              }
              EXPECT_LE(split, 2);
            }
          }
        }
      }
    }
  }
}

TEST(PlaceActivations, CarriesTheError) {
  for (int gpu = 0; gpu <= 100; gpu += 25) {
    const std::vector<Tier> tiers = place_activations({{gpu, 100 - gpu, 0}}, 8);
    EXPECT_EQ(std::count(tiers.begin(), tiers.end(), Tier::kGpu), gpu * 8 / 100) << gpu;
  }
}

TEST(ParsePercents, CompletesAndRefuses) {
  const Percents p = parse_percents({20, 80, 0, 50, 100, 0});
  EXPECT_EQ(p.weights, (PerTier<int>{{20, 80, 0}}));
  EXPECT_EQ(p.kv_cache, (PerTier<int>{{0, 50, 50}}));
  EXPECT_EQ(to_string(p), "20 80 0 50 100 0");
  EXPECT_THROW(parse_percents({20, 80}), Error);
  EXPECT_THROW(parse_percents({60, 50, 0, 100, 0, 100}), Error);
  EXPECT_THROW(parse_percents({-1, 50, 0, 100, 0, 100}), Error);
}

TEST(Placement, ReportsEveryContradictionAtOnce) {
  Placement placement;
  placement.gpu_batch_size = 0;
  placement.prefetch_depth = 1;
  placement.percents.weights = {{50, 20, 20}};
  try {
    validate(placement);
    FAIL() << "accepted";
  } catch (const Error& e) {
    const std::string text = e.what();
    EXPECT_NE(text.find("weight percents sum to 90"), std::string::npos) << text;
    EXPECT_NE(text.find("gpu_batch_size is 0"), std::string::npos) << text;
    EXPECT_NE(text.find("prefetch_depth is 1"), std::string::npos) << text;
  }
}

TEST(MemoryPlan, AddsUpAndFollowsTheSeats) {
  const ModelSpec spec = opt_spec(4, 256, 4, 512);
  Placement placement;
  placement.gpu_batch_size = 2;
  placement.num_gpu_batches = 2;
  placement.percents.kv_cache = {{50, 25, 25}};
  placement.percents.weights = {{30, 40, 30}};
  const Workload work{.max_prompt_len = 300, .max_gen_len = 20, .max_total_len = 320, .num_requests = 8};
  const RunShape shape = make_run_shape(spec, tensor_sizes(spec), placement, work, testing::test_traits());
  const MemoryPlan plan = make_memory_plan(shape, false);
  PerTier<std::int64_t> sum{};
  for (const PlannedBytes& item : plan.items) sum[item.tier] += item.bytes;
  EXPECT_EQ(sum, plan.total);
  EXPECT_EQ(shape.pages_per_seat, 5);
  EXPECT_EQ(plan.bytes(Purpose::kKv, Tier::kGpu), 4 * 10 * shape.kv.page_stride());
  EXPECT_EQ(plan.bytes(Purpose::kWeights, Tier::kDisk), 0);
  EXPECT_GT(make_memory_plan(shape, true).bytes(Purpose::kWeights, Tier::kDisk), 0);
}

TEST(RunShape, RefusesSequencesBeyondTheContext) {
  const ModelSpec spec = opt_spec(4, 256, 4, 512);
  const Workload work{.max_prompt_len = 2000, .max_gen_len = 200, .max_total_len = 2200, .num_requests = 1};
  EXPECT_THROW(make_run_shape(spec, tensor_sizes(spec), {}, work, testing::test_traits()), Error);
}

TEST(Placement, CpuAttentionOverOneGpuBatchRunsAsTwo) {
  Placement asked;
  asked.percents = parse_percents({50, 50, 0, 100, 100, 0});
  asked.gpu_batch_size = 7;
  EXPECT_EQ(overlapping(asked), asked) << "the GPU attends";
  asked.cpu_attention = true;
  EXPECT_EQ(overlapping(asked).num_gpu_batches, 2);
  EXPECT_EQ(overlapping(asked).gpu_batch_size, 4);
  EXPECT_EQ(overlapping(overlapping(asked)), overlapping(asked));
  Placement resident = asked;
  resident.percents.kv_cache = {{100, 0, 0}};
  EXPECT_EQ(overlapping(resident), resident) << "nothing is attended on the CPU";
  Placement single = asked;
  single.gpu_batch_size = 1;
  EXPECT_EQ(overlapping(single), single) << "one sequence cannot be split";
}

}  // namespace
}  // namespace sluice::policy
