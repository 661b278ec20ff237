// How runs end: a callback that throws, a second run on the same engine, and a prompt that fills its seat.
#include <fstream>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/e2e/e2e.h"

namespace sluice {
namespace {

offload::Request request_of(std::int64_t prompt_len, std::int64_t new_tokens) {
  offload::Request request;
  for (std::int64_t t = 0; t < prompt_len; ++t)
    request.prompt_ids.push_back(static_cast<std::int32_t>(10 + t * 7 % 300));
  request.max_new_tokens = new_tokens;
  request.ignore_eos = true;
  return request;
}

offload::EngineOptions options_for(const std::vector<offload::Request>& requests) {
  offload::EngineOptions options;
  options.placement.percents.weights = options.placement.percents.kv_cache = {{0, 50, 50}};
  options.placement.gpu_batch_size = 2;
  options.workload = testing::workload_of(requests, 256);
  options.num_threads = 2;
  return options;
}

TEST(RunEnd, AThrowingCallbackEndsTheRunAndTheEngine) {
  const std::vector<offload::Request> requests{request_of(20, 3), request_of(30, 5), request_of(10, 4)};
  offload::Engine engine(testing::model("rand-opt-bin-sharded"), nullptr, options_for(requests));
  for (const offload::Request& request : requests) engine.submit(request);
  const auto full = [](const offload::Result&) {
    throw Error(Code::kIo, "the output is full", "free space");
  };
  try {
    engine.run({}, full);
    FAIL() << "the failure was lost";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kIo) << e.what();
  }
  EXPECT_THROW(engine.run({}, [](const offload::Result&) {}), Error);
  EXPECT_GT(engine.stats().num_passes, 0);
}

TEST(RunEnd, ASecondRunGoesOnAndTheTraceStaysWhole) {
  const std::vector<offload::Request> requests{request_of(20, 3)};
  offload::EngineOptions options = options_for(requests);
  options.trace_file =
      std::filesystem::temp_directory_path() / fmt::format("sluice-trace-{}.json", ::getpid());
  std::vector<std::vector<std::int32_t>> rows;
  std::vector<std::size_t> events;
  {
    offload::Engine engine(testing::model("rand-opt-bin-sharded"), nullptr, options);
    for (int run = 0; run < 2; ++run) {
      engine.submit(requests.front());
      engine.run({}, [&](const offload::Result& result) { rows.push_back(result.token_ids); });
      std::ifstream in(options.trace_file);
      events.push_back(nlohmann::json::parse(in).size());
    }
  }
  std::filesystem::remove(options.trace_file);
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0], rows[1]);
  EXPECT_GT(events[1], events[0]);
}

// All K and V of a scored prompt are stored: 65 tokens take two pages, whatever the tier and however the
// prompt is cut.
TEST(RunEnd, ScoresAPromptThatEndsInItsOwnPage) {
  std::vector<float> wanted;
  for (const PerTier<int>& share :
       {PerTier<int>{{100, 0, 0}}, PerTier<int>{{0, 100, 0}}, PerTier<int>{{0, 0, 100}}}) {
    for (const std::int64_t max_tokens : {8192, 64}) {
      policy::Placement placement;
      placement.percents.kv_cache = share;
      placement.gpu_batch_size = 3;
      placement.max_tokens_per_gpu_batch = max_tokens;
      std::vector<offload::Request> requests(4, request_of(65, 0));
      for (offload::Request& request : requests) request.want_prompt_logprobs = true;
      const testing::RunOutcome outcome =
          testing::run_requests(testing::model("rand-opt-bin-sharded"), placement, std::move(requests));
      EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
      for (const offload::Result& result : outcome.results) {
        ASSERT_EQ(result.prompt_logprobs.size(), 64U);
        if (wanted.empty()) wanted = result.prompt_logprobs;
        EXPECT_EQ(result.prompt_logprobs, wanted);
      }
    }
  }
}

}  // namespace
}  // namespace sluice
