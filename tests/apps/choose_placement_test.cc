// The placement of a run that states no percents: what is chosen, and that the engine's plan of it is the
// planner's, byte for byte.
#include "apps/generate/choose_placement.h"

#include <random>

#include <gmock/gmock.h>

#include "apps/generate/plan.h"
#include "core/error.h"
#include "core/model/spec.h"
#include "core/units.h"
#include "kernels/device/cpu/thread_pool.h"
#include "offload/choose_device.h"
#include "offload/plan_run.h"

namespace sluice::apps {
namespace {

using ::testing::HasSubstr;

ModelSpec model_of(std::int64_t layers, std::int64_t heads, std::int64_t head_dim) {
  ModelSpec spec;
  spec.name = "random";
  spec.num_layers = layers;
  spec.hidden_dim = spec.embed_dim = heads * head_dim;
  spec.ffn_dim = 4 * spec.hidden_dim;
  spec.num_heads = spec.num_kv_heads = heads;
  spec.head_dim = head_dim;
  spec.vocab_size = 1000;
  spec.max_positions = 512;
  return spec;
}

offload::ModelSource source_of(const ModelSpec& spec) {
  offload::ModelSource source;
  source.random_spec = spec;
  return source;
}

RunWork work_of(const std::vector<policy::RequestLength>& requests) {
  RunWork work;
  for (const policy::RequestLength& one : requests) work.workload.add_request(one.prompt_len, one.gen_len);
  work.requests = requests;
  return work;
}

offload::EngineOptions options_for(const RunWork& work, const PerTier<std::int64_t>& budget_bytes) {
  offload::EngineOptions options;
  options.workload = work.workload;
  options.budget_bytes = budget_bytes;
  return options;
}

GenerateConfig config_with_profile() {
  GenerateConfig config;
  config.compute.hardware = "laptop-8gb";
  return config;
}

struct Case {
  ModelSpec spec;
  RunWork work;
  PlacementConfig stated;
  offload::EngineOptions options;
};

Case random_case(std::uint32_t seed) {
  std::mt19937 random(seed);
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  Case c;
  c.spec = model_of(pick(1, 6), pick(1, 6), 8 * pick(1, 8));
  std::vector<policy::RequestLength> requests;
  const std::int64_t count = pick(1, 40);
  const bool alike = pick(0, 1) == 1;
  const policy::RequestLength each{pick(1, 300), pick(0, 40)};
  for (std::int64_t i = 0; i < count; ++i)
    requests.push_back(alike ? each : policy::RequestLength{pick(1, 300), pick(0, 40)});
  c.work = work_of(requests);
  c.work.fill_block = alike && pick(0, 3) == 0;
  if (pick(0, 3) == 0) c.stated.cpu_cache_compute = pick(0, 1) == 1;
  if (pick(0, 3) == 0) c.stated.gpu_batch_size = pick(1, 9);
  if (pick(0, 3) == 0) c.stated.num_gpu_batches = pick(1, 4);
  if (pick(0, 3) == 0) c.stated.prefetch_depth = pick(2, 5);
  if (pick(0, 5) == 0) c.stated.max_tokens_per_gpu_batch = pick(c.stated.gpu_batch_size + 8, 500);
  if (pick(0, 3) == 0) c.stated.kv_format = KvFormat::kF32;
  if (pick(0, 3) == 0) c.stated.mixing = false;
  const std::int64_t kib = 1_KiB;
  c.options = options_for(c.work, {{pick(300, 12000) * kib, pick(100, 20000) * kib, pick(0, 60000) * kib}});
  if (pick(0, 3) == 0) c.options.weight_piece_bytes = 256_KiB;
  return c;
}

TEST(ChoosePlacement, StatedThreadsArePlannedWith) {
  Case c = random_case(1);
  c.options.num_threads = 4;
  const policy::PlanProblem problem =
      plan_problem(c.stated, offload::WeightSource(source_of(c.spec)), c.work, c.options);
  EXPECT_EQ(problem.choices.attention_threads, 4);
}

// The engine makes the memory plan anew from the placement. Were the two to differ, a plan that fits might
// not run.
TEST(ChoosePlacement, TheEnginesPlanIsThePlanners) {
  kernels::ThreadPool pool(1);
  const std::unique_ptr<kernels::Device> device = kernels::make_cpu_device(pool);
  const policy::HardwareProfile laptop = *policy::find_builtin_hardware("laptop-8gb");
  int planned = 0;
  for (std::uint32_t seed = 0; seed < 120; ++seed) {
    const Case c = random_case(seed);
    const offload::WeightSource weights(source_of(c.spec));
    policy::PlanProblem problem = plan_problem(c.stated, weights, c.work, c.options);
    problem.hardware = laptop;
    problem.step_budget = 100'000;
    const std::optional<policy::PlanResult> plan = make_plan(problem);
    if (!plan) continue;
    ++planned;
    offload::EngineOptions options = c.options;
    options.placement = plan->best.placement;
    if (c.work.fill_block) {  // the run has one request for each seat of the chosen block
      const std::vector<policy::RequestLength> block(static_cast<std::size_t>(options.placement.block_size()),
                                                     c.work.requests.front());
      options.workload = work_of(block).workload;
    }
    const offload::PlannedRun run = plan_run(weights, options, *device);
    EXPECT_EQ(run.shape.placement, plan->best.placement) << "seed " << seed;
    for (const Tier tier : kTiers) {
      EXPECT_EQ(run.memory.total[tier], plan->best.memory.total[tier])
          << "seed " << seed << ", " << tier_name(tier);
      EXPECT_LE(run.memory.total[tier], c.options.budget_bytes[tier])
          << "seed " << seed << ", " << tier_name(tier);
    }
    const policy::Placement& chosen = plan->best.placement;
    if (c.stated.prefetch_depth > 0) {
      EXPECT_EQ(chosen.prefetch_depth, c.stated.prefetch_depth) << "seed " << seed;
    }
    if (c.stated.max_tokens_per_gpu_batch > 0) {
      EXPECT_EQ(chosen.max_tokens_per_gpu_batch, c.stated.max_tokens_per_gpu_batch) << "seed " << seed;
    }
    if (c.stated.cpu_cache_compute) {
      EXPECT_EQ(chosen.cpu_attention, *c.stated.cpu_cache_compute) << "seed " << seed;
    }
  }
  EXPECT_GT(planned, 50) << "most cases refuse";
}

TEST(ChoosePlacement, WhereEverythingFitsThereIsNothingToChoose) {
  const RunWork work = work_of({{100, 10}, {30, 20}, {30, 20}});
  GenerateConfig config;  // no profile, and none that tests can see: choosing would measure
  config.placement.prefetch_depth = 3;
  const ChosenPlacement chosen =
      choose_placement(config, offload::WeightSource(source_of(model_of(2, 2, 32))), work,
                       options_for(work, {{64_MiB, 64_MiB, 0}}));
  EXPECT_FALSE(chosen.profile);
  EXPECT_EQ(to_string(chosen.placement.percents), "100 0 100 0 100 0");
  EXPECT_EQ(chosen.placement.block_size(), 3) << "one block holds all requests";
  EXPECT_EQ(chosen.placement.prefetch_depth, 3);
  EXPECT_EQ(chosen.placement.max_tokens_per_gpu_batch, 300);
}

TEST(ChoosePlacement, PlansByTheNamedProfileAndKeepsWhatIsStated) {
  const ModelSpec spec = model_of(6, 4, 64);
  const offload::WeightSource weights(source_of(spec));
  const RunWork work = work_of(std::vector<policy::RequestLength>(8, {64, 8}));
  const offload::EngineOptions options = options_for(work, {{8_MiB, 64_MiB, 0}});
  GenerateConfig config = config_with_profile();
  const ChosenPlacement free = choose_placement(config, weights, work, options);
  ASSERT_TRUE(free.profile);
  EXPECT_EQ(free.profile->origin, "--hardware laptop-8gb");
  EXPECT_LT(free.placement.percents.weights[Tier::kGpu], 100);
  config.placement.gpu_batch_size = 2;
  config.placement.num_gpu_batches = 3;
  config.placement.cpu_cache_compute = true;
  config.placement.mixing = false;
  config.placement.prefetch = false;
  config.placement.kv_format = KvFormat::kF32;
  const policy::Placement stated = choose_placement(config, weights, work, options).placement;
  EXPECT_EQ(stated.gpu_batch_size, 2);
  EXPECT_EQ(stated.num_gpu_batches, 3);
  EXPECT_TRUE(stated.cpu_attention);
  EXPECT_FALSE(stated.mixing);
  EXPECT_FALSE(stated.prefetch);
  EXPECT_EQ(stated.kv_format, KvFormat::kF32);
}

TEST(ChoosePlacement, ABlockHasNoMoreSeatsThanThereAreRequests) {
  const offload::WeightSource weights(source_of(model_of(6, 4, 64)));
  const RunWork many = work_of(std::vector<policy::RequestLength>(1100, {8, 4}));
  const GenerateConfig config = config_with_profile();
  const policy::Placement chosen =
      choose_placement(config, weights, many, options_for(many, {{4_MiB, 512_MiB, 0}})).placement;
  EXPECT_LE(chosen.block_size(), 1100 + chosen.num_gpu_batches - 1)
      << "the last GPU batch may have empty seats";
}

// One block of all requests would have more GPU batches than a placement can.
TEST(ChoosePlacement, ManyRequestsInSmallBatchesArePlanned) {
  const offload::WeightSource weights(source_of(model_of(2, 2, 32)));
  const RunWork many = work_of(std::vector<policy::RequestLength>(5000, {8, 2}));
  GenerateConfig config = config_with_profile();
  config.placement.gpu_batch_size = 4;
  const ChosenPlacement chosen =
      choose_placement(config, weights, many, options_for(many, {{256_MiB, 64_MiB, 0}}));
  EXPECT_TRUE(chosen.profile);
  EXPECT_EQ(chosen.placement.gpu_batch_size, 4);
}

struct Refused {
  PerTier<std::int64_t> budget_bytes;
  PlacementConfig stated;
  Code code;
  std::vector<std::string> messages;
};

TEST(ChoosePlacement, RefusesWithTheMissingBytesAndTheRemedyBeforeItMeasures) {
  const offload::WeightSource weights(source_of(model_of(6, 4, 64)));
  const RunWork work = work_of(std::vector<policy::RequestLength>(8, {400, 8}));
  PlacementConfig large;
  large.gpu_batch_size = 300;
  PlacementConfig contradiction;
  contradiction.gpu_batch_size = 9;
  contradiction.max_tokens_per_gpu_batch = 8;
  const std::vector<Refused> cases = {
      {{{1_MiB, 1_MiB, 0}},
       {},
       Code::kOutOfMemory,
       {"GPU memory: ", "more is needed", "raise --gpu-memory to"}},
      {{{64_MiB, 1_MiB, 0}},
       large,
       Code::kOutOfMemory,
       {"the stated block of 300", "lower --gpu-batch-size to "}},
      {{{5_MiB, 12_MiB, 0}}, {}, Code::kOutOfMemory, {"the longest has 408 tokens, ", "at most would fit"}},
      {{{6_MiB, 64_MiB, 0}},
       contradiction,
       Code::kInvalidArgument,
       {"--max-tokens-per-gpu-batch 8 is below --gpu-batch-size 9"}},
  };
  for (const Refused& c : cases) {
    GenerateConfig config;  // no profile: what fits is known without one
    config.placement = c.stated;
    try {
      choose_placement(config, weights, work, options_for(work, c.budget_bytes));
      ADD_FAILURE() << "accepted: " << c.messages.front();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), c.code) << e.what();
      for (const std::string& message : c.messages) EXPECT_THAT(e.what(), HasSubstr(message));
    }
  }
}

/// What stands in a text after these words, as a number; 0 if they do not stand there.
std::int64_t number_after(const std::string& text, const std::string& words) {
  const std::size_t at = text.find(words);
  return at == std::string::npos ? 0 : std::stoll(text.substr(at + words.size()));
}

// The remedy is one: with it, the run fits.
TEST(ChoosePlacement, WhatTheRemedyNamesFits) {
  const offload::WeightSource weights(source_of(model_of(6, 4, 64)));
  const auto refusal = [&](std::int64_t prompt_len,
                           const PerTier<std::int64_t>& budget_bytes) -> std::string {
    const RunWork work = work_of({{prompt_len, 8}});
    try {
      choose_placement(config_with_profile(), weights, work, options_for(work, budget_bytes));
    } catch (const Error& e) {
      return e.what();
    }
    return {};
  };
  const std::vector<PerTier<std::int64_t>> budgets = {{{5_MiB, 12_MiB, 0}},
                                                      {{1_MiB, 64_MiB, 0}},
                                                      {{2_MiB, 3_MiB, 0}},
                                                      {{64_KiB, 16_MiB, 0}},
                                                      {{8_MiB, 1_MiB, 1_MiB}}};
  for (const PerTier<std::int64_t>& budget_bytes : budgets) {
    const std::string said = refusal(400, budget_bytes);
    ASSERT_NE(said, "");
    PerTier<std::int64_t> raised = budget_bytes;
    for (const Tier tier : kTiers) {
      const std::int64_t mib = number_after(said, fmt::format("--{}-memory to ", tier_name(tier)));
      if (mib > 0) raised[tier] = mib * 1_MiB;
    }
    EXPECT_NE(raised, budget_bytes) << said;
    EXPECT_EQ(refusal(400, raised), "") << said;
    const std::int64_t longest = number_after(said, "the longest has 408 tokens, ");
    if (longest == 0) continue;
    EXPECT_EQ(refusal(longest - 8, budget_bytes), "") << said;
    EXPECT_NE(refusal(longest - 8 + kKvPageTokens, budget_bytes), "") << said;
  }
}

}  // namespace
}  // namespace sluice::apps
