// Placement never changes the answer: FlexGen's functional matrix (its suite 1b3_test), times the number of
// GPU batches, times CPU attention, against everything on the GPU with one GPU batch. And what was to be
// offloaded was: bytes of every lane against the test's own count, shares against the asked percents.
#include <cmath>
#include <map>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/e2e/lane_bytes.h"
#include "tests/e2e/small_model.h"

namespace sluice {
namespace {

using offload::FinishReason;
using offload::Request;
using offload::Result;
using policy::Placement;
using testing::RunOutcome;

constexpr std::int64_t kGpuBatchSize = 2;  // up to 3 batches, so 14 requests are more than twice the block

struct Case {
  const char* name;
  std::vector<int> percents;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"AllOnGpu", {100, 0, 100, 0, 100, 0}},
      {"WeightsOnCpu", {0, 100, 100, 0, 100, 0}},
      {"KvOnCpu", {100, 0, 0, 100, 100, 0}},
      {"WeightsAndKvOnCpu", {0, 100, 0, 100, 100, 0}},
      {"WeightsOnDisk", {0, 0, 100, 0, 100, 0}},
      {"KvOnDisk", {100, 0, 0, 0, 100, 0}},
      {"WeightsHalfOnCpu", {50, 50, 100, 0, 100, 0}},
      {"KvHalfOnCpu", {100, 0, 50, 50, 100, 0}},
      {"KvHalfOnDisk", {100, 0, 0, 50, 100, 0}},
      {"ActivationsOnCpu", {100, 0, 100, 0, 0, 100}},
      {"ActivationsOnDisk", {100, 0, 100, 0, 0, 0}},
      {"AllOnCpu", {0, 100, 0, 100, 0, 100}},
      {"AllOnDisk", {0, 0, 0, 0, 0, 0}},
      {"ThreeWay", {30, 30, 35, 30, 34, 33}},
      {"ThreeWayUneven", {10, 60, 5, 55, 0, 50}},
  };
  return all;
}

/// Everything on the GPU, one GPU batch, whole prompts.
const std::vector<Result>& resident_results(KvFormat kv_format) {
  static std::map<KvFormat, std::vector<Result>> results;
  auto& mine = results[kv_format];
  if (mine.empty()) {
    const ModelSpec spec = testing::small_spec_with_eos();
    Placement placement = testing::placed({100, 0, 100, 0, 100, 0}, kGpuBatchSize, 1, false);
    placement.kv_format = kv_format;
    RunOutcome outcome =
        testing::run_requests(testing::synthetic(spec), placement, testing::ragged_requests(spec.vocab_size));
    EXPECT_TRUE(outcome.violations.empty());
    mine = std::move(outcome.results);
  }
  return mine;
}

void expect_weight_shares(const RunOutcome& outcome) {
  const std::vector<TensorSpec> tensors = model_tensors(outcome.shape.spec);
  PerTier<std::int64_t> bytes{};
  std::int64_t total = 0;
  std::int64_t largest = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::int64_t size = tensors[i].rows * tensors[i].cols * 2;
    bytes[outcome.shape.tensors[i].tier] += size;
    total += size;
    largest = std::max(largest, size);
  }
  for (const Tier tier : kTiers) {
    const double asked = outcome.shape.placement.percents.weights[tier] * static_cast<double>(total) / 100;
    EXPECT_LE(std::abs(static_cast<double>(bytes[tier]) - asked), static_cast<double>(largest))
        << tier_name(tier) << " has " << bytes[tier] << " of " << total << " bytes";
  }
}

/// Shares are of reserved pages, to the page.
void expect_kv_shares(const RunOutcome& outcome) {
  PerTier<std::int64_t> pages{};
  for (const policy::SeatPages& seat : outcome.shape.seats.seats) {
    EXPECT_EQ(seat.total(), outcome.shape.pages_per_seat);
    for (const Tier tier : kTiers) pages[tier] += seat.count[tier];
  }
  const std::int64_t total = outcome.shape.pages_per_seat * outcome.shape.placement.block_size();
  for (const Tier tier : kTiers) {
    const double asked = outcome.shape.placement.percents.kv_cache[tier] * static_cast<double>(total) / 100;
    EXPECT_LE(std::abs(static_cast<double>(pages[tier]) - asked), 1.0) << tier_name(tier);
  }
}

/// Shares are of GPU batches, to the batch.
void expect_activation_shares(const RunOutcome& outcome) {
  const policy::Placement& placement = outcome.shape.placement;
  PerTier<int> batches{};
  for (const Tier tier : outcome.shape.activation_tier) ++batches[tier];
  for (const Tier tier : kTiers) {
    const double asked =
        placement.percents.activations[tier] * static_cast<double>(placement.num_gpu_batches) / 100;
    EXPECT_LT(std::abs(batches[tier] - asked), 1.0) << tier_name(tier);
  }
}

void expect_lane_bytes(const RunOutcome& outcome) {
  const auto expected = testing::expected_lane_bytes(outcome);
  const auto counted = testing::counted_lane_bytes(outcome);
  for (std::size_t i = 0; i < policy::kNumLanes; ++i)
    EXPECT_EQ(counted[i], expected[i]) << lane_name(static_cast<policy::LaneKind>(i));
}

RunOutcome run_and_judge(const offload::ModelSource& source, const Placement& placement,
                         std::vector<Request> requests, const std::vector<Result>& expected,
                         int num_threads = 2) {
  RunOutcome outcome =
      testing::run_requests(source, placement, std::move(requests), nullptr, nullptr, num_threads);
  EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
  EXPECT_EQ(testing::first_difference(expected, outcome.results), "");
  expect_lane_bytes(outcome);
  expect_weight_shares(outcome);
  expect_kv_shares(outcome);
  expect_activation_shares(outcome);
  EXPECT_EQ(outcome.stats.reserved_bytes, outcome.stats.planned_bytes) << "bytes are reserved as planned";
  return outcome;
}

TEST(PlacementMatrix, ItsRequestsEndInEveryWay) {
  std::map<FinishReason, int> ends;
  for (const Result& result : resident_results(KvFormat::kF16)) ++ends[result.finish_reason];
  EXPECT_GE(ends[FinishReason::kEos], 2);
  EXPECT_GE(ends[FinishReason::kLength], 4);
}

class PlacementMatrix : public ::testing::TestWithParam<std::tuple<std::size_t, int, bool>> {};

TEST_P(PlacementMatrix, IsBitIdenticalToAllOnGpu) {
  const auto& [index, num_gpu_batches, cpu_attention] = GetParam();
  const ModelSpec spec = testing::small_spec_with_eos();
  Placement placement =
      testing::placed(cases()[index].percents, kGpuBatchSize, num_gpu_batches, cpu_attention);
  placement.max_tokens_per_gpu_batch = 150;  // the prompts of 200 and 333 tokens are cut
  const RunOutcome outcome =
      run_and_judge(testing::synthetic(spec), placement, testing::ragged_requests(spec.vocab_size),
                    resident_results(KvFormat::kF16));
  EXPECT_GT(outcome.results.size(), static_cast<std::size_t>(2 * outcome.shape.placement.block_size()));
  bool cut = false;
  bool mixed = false;
  for (const policy::Pass& pass : outcome.passes) {
    bool decodes = false;
    for (const policy::Segment& segment : pass.segments) {
      decodes = decodes || segment.decode;
      cut = cut || (!segment.decode && segment.first_kv > 0);
    }
    mixed = mixed || (decodes && pass.has_prefill);
  }
  EXPECT_TRUE(cut) << "no prompt was prefilled in pieces";
  EXPECT_TRUE(mixed) << "no pass had prefill and decode rows";
}

std::string matrix_name(const ::testing::TestParamInfo<std::tuple<std::size_t, int, bool>>& info) {
  return fmt::format("{}K{}{}", cases()[std::get<0>(info.param)].name, std::get<1>(info.param),
                     std::get<2>(info.param) ? "CpuAttention" : "");
}
INSTANTIATE_TEST_SUITE_P(Small, PlacementMatrix,
                         ::testing::Combine(::testing::Range(std::size_t{0}, cases().size()),
                                            ::testing::Values(1, 2, 3), ::testing::Bool()),
                         matrix_name);

// The other switches, over placements that use every transfer.
struct Variant {
  const char* name;
  KvFormat kv_format = KvFormat::kF16;
  bool mixing = true;
  bool prefetch = true;
  int num_threads = 2;
  std::int64_t max_tokens = 150;
  std::int64_t prefetch_depth = 2;
  std::int64_t gpu_batch_size = 2;
};
constexpr Variant kVariants[] = {
    {.name = "Fp32", .kv_format = KvFormat::kF32},
    {.name = "NoMixing", .mixing = false},
    {.name = "NoPrefetch", .prefetch = false},
    {.name = "OneThread", .num_threads = 1},
    {.name = "ThreeThreads", .num_threads = 3},
    {.name = "WholePrompts", .max_tokens = 8192},
    {.name = "FewTokens", .max_tokens = 37},
    {.name = "Depth4", .prefetch_depth = 4},
    {.name = "LargeBatch", .gpu_batch_size = 5},
    {.name = "OneByOne", .kv_format = KvFormat::kF32, .mixing = false, .num_threads = 3, .gpu_batch_size = 1},
};

class PlacementVariants : public ::testing::TestWithParam<std::tuple<Variant, bool>> {};

TEST_P(PlacementVariants, AreBitIdenticalToAllOnGpu) {
  const auto& [variant, cpu_attention] = GetParam();
  const ModelSpec spec = testing::small_spec_with_eos();
  for (const std::vector<int>& percents : {std::vector<int>{20, 40, 30, 30, 0, 50}, {0, 0, 0, 0, 0, 0}}) {
    Placement placement = testing::placed(percents, variant.gpu_batch_size, 2, cpu_attention);
    placement.kv_format = variant.kv_format;
    placement.mixing = variant.mixing;
    placement.prefetch = variant.prefetch;
    placement.max_tokens_per_gpu_batch = variant.max_tokens;
    placement.prefetch_depth = variant.prefetch_depth;
    SCOPED_TRACE(to_string(placement.percents));
    const RunOutcome outcome =
        run_and_judge(testing::synthetic(spec), placement, testing::ragged_requests(spec.vocab_size),
                      resident_results(variant.kv_format), variant.num_threads);
    if (variant.mixing) continue;
    for (const policy::Pass& pass : outcome.passes) {
      for (const policy::Segment& segment : pass.segments) EXPECT_NE(segment.decode, pass.has_prefill);
    }
  }
}

std::string variant_name(const ::testing::TestParamInfo<std::tuple<Variant, bool>>& info) {
  return fmt::format("{}{}", std::get<0>(info.param).name, std::get<1>(info.param) ? "CpuAttention" : "");
}
INSTANTIATE_TEST_SUITE_P(Small, PlacementVariants,
                         ::testing::Combine(::testing::ValuesIn(kVariants), ::testing::Bool()), variant_name);

// Real stores: disk weights are read in place.
class StoredModels : public ::testing::TestWithParam<const char*> {};

TEST_P(StoredModels, AreBitIdenticalToAllOnGpu) {
  const offload::ModelSource source = testing::model(GetParam());
  const std::int64_t vocab = 512;
  std::vector<Request> requests = testing::ragged_requests(vocab);
  // One context is 256 tokens long; what is longer than that is tried on the synthetic model.
  for (Request& request : requests)
    request.prompt_ids.resize(std::min<std::size_t>(request.prompt_ids.size(), 220));
  const Placement resident = testing::placed({100, 0, 100, 0, 100, 0}, 4, 1, false);
  const RunOutcome expected = testing::run_requests(source, resident, requests);
  EXPECT_TRUE(expected.violations.empty());
  for (const std::vector<int>& percents :
       {std::vector<int>{0, 0, 0, 0, 0, 0}, {30, 30, 35, 30, 34, 33}, {20, 80, 0, 100, 0, 100}}) {
    for (const bool cpu_attention : {false, true}) {
      Placement placement = testing::placed(percents, 2, 2, cpu_attention);
      placement.max_tokens_per_gpu_batch = 150;
      SCOPED_TRACE(fmt::format("{}, CPU attention {}", to_string(placement.percents), cpu_attention));
      run_and_judge(source, placement, requests, expected.results);
    }
  }
}

std::string model_name(const ::testing::TestParamInfo<const char*>& info) {
  std::string name = info.param;
  std::erase(name, '-');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Stored, StoredModels,
                         ::testing::Values("rand-opt-postln", "rand-opt-bin-sharded",
                                           "tiny-opt-books-sparse80"),
                         model_name);

}  // namespace
}  // namespace sluice
