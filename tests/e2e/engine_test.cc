// The engine's promises to its caller: how requests end, what is refused, and when.
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/store/manifest.h"
#include "core/tokenizer/tokenizer.h"
#include "tests/e2e/small_model.h"
#include "tests/support/paths.h"

namespace sluice {
namespace {

using offload::Engine;
using offload::FinishReason;
using offload::Request;
using offload::Result;
using ::testing::HasSubstr;

constexpr const char* kTrained = "tiny-opt-books-sparse80";

Request request_of(std::int64_t prompt_len, std::int64_t max_new_tokens, std::uint32_t seed = 1) {
  Request request;
  request.prompt_ids = testing::prompt_of(prompt_len, testing::small_spec().vocab_size, seed);
  request.max_new_tokens = max_new_tokens;
  request.want_logprobs = true;
  return request;
}

/// An engine over the small model; two GPU batches of two, parts of everything off the GPU.
offload::EngineOptions options_for(std::int64_t max_prompt_len, std::int64_t max_total_len) {
  offload::EngineOptions options;
  options.placement = testing::placed({40, 60, 50, 50, 0, 100}, 2, 2, true);
  options.workload = {.max_prompt_len = max_prompt_len,
                      .max_gen_len = max_total_len,
                      .max_total_len = max_total_len,
                      .num_requests = 8};
  options.num_threads = 2;
  return options;
}

/// Runs the engine dry; results by index, counted from `first`.
std::vector<Result> drain(Engine& engine, std::size_t count, std::int64_t first = 0) {
  std::vector<Result> results(count);
  std::size_t delivered = 0;
  engine.run({}, [&](Result result) {
    ++delivered;
    results.at(static_cast<std::size_t>(result.index - first)) = std::move(result);
  });
  EXPECT_EQ(delivered, count) << "each request has one result";
  return results;
}

std::vector<Result> run_alone(const std::vector<Request>& requests) {
  return testing::run_requests(testing::synthetic(testing::small_spec()),
                               testing::placed({100, 0, 100, 0, 100, 0}, 2, 1, false), requests)
      .results;
}

// ---- Text and stop strings, on the trained model.

class TrainedEngine : public ::testing::Test {
 protected:
  Result generate(std::vector<std::string> stop, std::int64_t max_new_tokens = 24) {
    Request request;
    request.prompt_ids = tokenizer->encode("The old house stood at the end of", /*add_bos=*/true);
    request.max_new_tokens = max_new_tokens;
    request.stop = std::move(stop);
    request.ignore_eos = true;
    return testing::run_requests(testing::model(kTrained), {}, {request}, tokenizer.get()).results.at(0);
  }
  /// Where each token's text begins in `result.text`.
  std::vector<std::size_t> token_starts(const Result& result) const {
    std::vector<std::size_t> starts;
    std::size_t position = 0;
    for (const std::int32_t id : result.token_ids) {
      starts.push_back(position);
      position += tokenizer->token_bytes(id).size();
    }
    return starts;
  }

  std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(testing::golden(kTrained));
};

TEST_F(TrainedEngine, TextIsWhatTheTokensSay) {
  const Result result = generate({});
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
  EXPECT_EQ(result.token_ids.size(), 24U);
  EXPECT_EQ(result.text, tokenizer->decode(result.token_ids));
  EXPECT_FALSE(result.text.empty());
}

TEST_F(TrainedEngine, TextEndsBeforeAStopStringThatSpansTokens) {
  const Result open = generate({});
  const std::vector<std::size_t> starts = token_starts(open);
  int tried = 0;
  for (std::size_t token = 4; token < 20; token += 3) {
    // The last byte of one token, and the next token, and one byte more.
    const std::size_t begin = starts[token] - 1;
    const std::string stop = open.text.substr(begin, starts[token + 1] + 1 - begin);
    const std::size_t found = open.text.find(stop);
    const Result result = generate({"never in the text", stop});
    EXPECT_EQ(result.finish_reason, FinishReason::kStop) << "'" << stop << "'";
    EXPECT_EQ(result.text, open.text.substr(0, found));
    // Every generated token is kept: up to the one that completes the string.
    ASSERT_LE(result.token_ids.size(), open.token_ids.size());
    EXPECT_TRUE(std::equal(result.token_ids.begin(), result.token_ids.end(), open.token_ids.begin()));
    EXPECT_LT(starts[result.token_ids.size() - 1], found + stop.size());
    EXPECT_GE(tokenizer->decode(result.token_ids).size(), found + stop.size());
    ++tried;
  }
  EXPECT_EQ(tried, 6);
}

TEST_F(TrainedEngine, TheEarliestOfSeveralStopStringsCounts) {
  const Result open = generate({});
  const std::string late = open.text.substr(open.text.size() / 2, 6);
  const std::string early = open.text.substr(open.text.size() / 4, 6);
  const Result result = generate({late, early});
  EXPECT_EQ(result.text, open.text.substr(0, std::min(open.text.find(early), open.text.find(late))));
}

TEST_F(TrainedEngine, AStopStringThatNeverComesChangesNothing) {
  const Result open = generate({});
  const Result result = generate({"\x01\x02 not in any book"});
  EXPECT_EQ(result.text, open.text);
  EXPECT_EQ(result.token_ids, open.token_ids);
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
}

// ---- How requests end.

TEST(EngineRequests, EndWithAStopIdThatIsKept) {
  Request request = request_of(20, 12);
  const Result open = run_alone({request}).at(0);
  const std::int32_t stop = open.token_ids.at(7);
  request.stop_ids = {stop};
  const Result result = run_alone({request}).at(0);
  const auto end = std::find(open.token_ids.begin(), open.token_ids.end(), stop) + 1;
  EXPECT_EQ(result.token_ids, std::vector<std::int32_t>(open.token_ids.begin(), end));
  EXPECT_EQ(result.finish_reason, FinishReason::kStop);
  EXPECT_EQ(result.logprobs.size(), result.token_ids.size());
}

TEST(EngineRequests, EndWithTheEndTokenUnlessItIsIgnored) {
  ModelSpec spec = testing::small_spec();
  Request request = request_of(20, 12);
  const Result open = run_alone({request}).at(0);
  spec.eos_id = open.token_ids.at(5);
  const auto run = [&](bool ignore_eos) {
    request.ignore_eos = ignore_eos;
    return testing::run_requests(testing::synthetic(spec), {}, {request}).results.at(0);
  };
  const Result ended = run(false);
  EXPECT_EQ(ended.finish_reason, FinishReason::kEos);
  EXPECT_EQ(ended.token_ids.back(), spec.eos_id);
  EXPECT_LE(ended.token_ids.size(), 6U);
  const Result ignored = run(true);
  EXPECT_EQ(ignored.finish_reason, FinishReason::kLength);
  EXPECT_EQ(ignored.token_ids, open.token_ids);
}

TEST(EngineRequests, WithoutNewTokensOnlyScore) {
  Request one = request_of(1, 0);
  one.want_prompt_logprobs = true;
  Request many = request_of(150, 0);
  many.want_prompt_logprobs = true;
  const std::vector<Result> results = run_alone({one, request_of(30, 0), many});
  for (const Result& result : results) {
    EXPECT_TRUE(result.token_ids.empty());
    EXPECT_TRUE(result.logprobs.empty());
    EXPECT_EQ(result.finish_reason, FinishReason::kLength);
  }
  EXPECT_EQ(results[0].prompt_logprobs.size(), 0U);
  EXPECT_EQ(results[1].prompt_logprobs.size(), 0U);
  ASSERT_EQ(results[2].prompt_logprobs.size(), 149U);
  for (const float logprob : results[2].prompt_logprobs) EXPECT_LT(logprob, 0.0F);
}

TEST(EngineRequests, ScoresAreTheLogProbsOfGenerating) {
  const Request generated = request_of(70, 10);
  const Result result = run_alone({generated}).at(0);
  Request scored;
  scored.prompt_ids = generated.prompt_ids;
  scored.prompt_ids.insert(scored.prompt_ids.end(), result.token_ids.begin(), result.token_ids.end());
  scored.max_new_tokens = 0;
  scored.want_prompt_logprobs = true;
  const Result scores = run_alone({scored}).at(0);
  for (std::size_t i = 0; i < result.token_ids.size(); ++i)
    EXPECT_EQ(scores.prompt_logprobs.at(69 + i), result.logprobs[i].logprob) << i;
}

TEST(EngineRequests, EndAtTheEndOfTheContext) {
  const std::int64_t context = testing::small_spec().max_positions;
  const std::vector<Result> results =
      run_alone({request_of(context - 7, 100), request_of(context, 5), request_of(context - 1, 5)});
  EXPECT_EQ(results[0].token_ids.size(), 7U);
  EXPECT_EQ(results[1].token_ids.size(), 0U);
  EXPECT_EQ(results[2].token_ids.size(), 1U);
  for (const Result& result : results) EXPECT_EQ(result.finish_reason, FinishReason::kLength);
}

TEST(EngineRequests, TopTokensComeInFallingOrderAndIncludeTheGreedyOne) {
  Request request = request_of(20, 8);
  request.num_top_logprobs = 5;
  const Result result = run_alone({request}).at(0);
  ASSERT_EQ(result.logprobs.size(), 8U);
  for (const offload::GeneratedLogprob& entry : result.logprobs) {
    ASSERT_EQ(entry.top.size(), 5U);
    EXPECT_EQ(entry.top[0].token_id, entry.token_id);
    EXPECT_EQ(entry.top[0].logprob, entry.logprob);
    for (std::size_t i = 1; i < 5; ++i) EXPECT_LE(entry.top[i].logprob, entry.top[i - 1].logprob);
  }
}

TEST(EngineRequests, HandOutTokensAsTheyCome) {
  Engine engine(testing::synthetic(testing::small_spec()), nullptr, options_for(100, 120));
  std::vector<std::vector<std::int32_t>> heard(3);
  for (std::size_t i = 0; i < heard.size(); ++i) {
    Request request = request_of(10 + 30 * static_cast<std::int64_t>(i), 9, static_cast<std::uint32_t>(i));
    request.on_token = [&heard, i](std::int32_t id) { heard[i].push_back(id); };
    engine.submit(std::move(request));
  }
  const std::vector<Result> results = drain(engine, 3);
  for (std::size_t i = 0; i < heard.size(); ++i) EXPECT_EQ(heard[i], results[i].token_ids);
}

// ---- Cancelling.

TEST(EngineCancel, EndsRunningAndQueuedRequestsAndNoOther) {
  std::vector<Request> requests;
  for (std::uint32_t i = 0; i < 9; ++i) requests.push_back(request_of(20 + 11 * i, 10, i));
  const std::vector<Result> expected = run_alone(requests);

  Engine engine(testing::synthetic(testing::small_spec()), nullptr, options_for(120, 140));
  int heard = 0;
  requests[1].on_token = [&](std::int32_t) {
    // The block has four seats: 1 is running, 7 waits.
    if (++heard != 3) return;
    engine.cancel(1);
    engine.cancel(7);
    engine.cancel(1000);  // of nobody
  };
  for (const Request& request : requests) engine.submit(request);
  const std::vector<Result> results = drain(engine, 9);
  EXPECT_EQ(results[1].finish_reason, FinishReason::kCancelled);
  EXPECT_GE(results[1].token_ids.size(), 3U);
  EXPECT_LT(results[1].token_ids.size(), 10U);
  EXPECT_TRUE(
      std::equal(results[1].token_ids.begin(), results[1].token_ids.end(), expected[1].token_ids.begin()));
  EXPECT_EQ(results[7].finish_reason, FinishReason::kCancelled);
  EXPECT_TRUE(results[7].token_ids.empty());
  for (const std::size_t i : {0U, 2U, 3U, 4U, 5U, 6U, 8U})
    EXPECT_EQ(testing::first_difference({&expected[i], 1}, {&results[i], 1}), "") << i;
}

TEST(EngineCancel, BeforeTheRunAndAfterTheResult) {
  Engine engine(testing::synthetic(testing::small_spec()), nullptr, options_for(100, 120));
  const std::int64_t index = engine.submit(request_of(20, 5));
  engine.submit(request_of(30, 5));
  engine.cancel(index);
  const std::vector<Result> results = drain(engine, 2);
  EXPECT_EQ(results[0].finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(results[1].finish_reason, FinishReason::kLength);
  engine.cancel(1);  // has its result already
  engine.submit(request_of(40, 5));
  EXPECT_EQ(drain(engine, 1, 2).at(0).finish_reason, FinishReason::kLength);
}

// ---- The queue.

TEST(EngineQueue, TakesRequestsOverSeveralRuns) {
  std::vector<Request> requests;
  for (std::uint32_t i = 0; i < 10; ++i) requests.push_back(request_of(15 + 9 * i, 6, i));
  const std::vector<Result> expected = run_alone(requests);
  Engine engine(testing::synthetic(testing::small_spec()), nullptr, options_for(120, 140));
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(engine.submit(requests[i]), static_cast<std::int64_t>(i));
  std::vector<Result> results = drain(engine, 6);
  EXPECT_EQ(engine.stats().requests_done, 6);
  EXPECT_TRUE(drain(engine, 0).empty()) << "nothing to do is no failure";
  for (std::size_t i = 6; i < 10; ++i) engine.submit(requests[i]);
  for (Result& result : drain(engine, 4, 6)) results.push_back(std::move(result));
  EXPECT_EQ(testing::first_difference(expected, results), "");
  EXPECT_EQ(engine.stats().requests_done, 10);
  EXPECT_EQ(engine.stats().generated_tokens, 60);
}

TEST(EngineQueue, TakesRequestsWhileItRuns) {
  Engine engine(testing::synthetic(testing::small_spec()), nullptr, options_for(100, 120));
  engine.submit(request_of(20, 4));
  std::vector<std::int64_t> order;
  engine.run({}, [&](const Result& result) {
    order.push_back(result.index);
    if (order.size() >= 4) return;
    // From the run thread, and from another one.
    engine.submit(request_of(30, 4));
    if (order.size() == 1) std::thread([&] { engine.submit(request_of(40, 4)); }).join();
  });
  EXPECT_THAT(order, ::testing::UnorderedElementsAre(0, 1, 2, 3, 4));
}

TEST(EngineQueue, SubmitsFromManyThreads) {
  Engine engine(testing::synthetic(testing::small_spec()), nullptr, options_for(100, 120));
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&engine, t] {
      for (std::uint32_t i = 0; i < 5; ++i) engine.submit(request_of(5 + t, 2, 10 * t + i));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Result& result : drain(engine, 20)) EXPECT_EQ(result.token_ids.size(), 2U);
}

TEST(EngineQueue, AnswersOnlyStatsAfterAStoppedRun) {
  Engine engine(testing::synthetic(testing::small_spec()), nullptr, options_for(100, 120));
  std::stop_source stop;
  Request request = request_of(20, 60);
  request.on_token = [&](std::int32_t) { stop.request_stop(); };
  engine.submit(std::move(request));
  for (int i = 0; i < 2; ++i) {
    try {
      engine.run(stop.get_token(), [](const Result&) { ADD_FAILURE() << "nothing is finished"; });
      ADD_FAILURE() << "the run went through";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kCancelled);
      EXPECT_THAT(e.what(), HasSubstr(i == 0 ? "the run was stopped" : "make a new engine"));
    }
  }
  EXPECT_FALSE(engine.stats().lanes.empty());
}

// ---- Refusals.

class EngineRefusals : public ::testing::Test {
 protected:
  /// The message with which `request` is refused.
  std::string refusal(const Request& request) {
    try {
      engine.submit(request);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kInvalidArgument);
      EXPECT_FALSE(e.fix().empty()) << "a refusal names the remedy";
      return e.what();
    }
    return "it was taken";
  }
  Engine engine{testing::synthetic(testing::small_spec()), nullptr, options_for(100, 120)};
};

TEST_F(EngineRefusals, NameTheNumbers) {
  EXPECT_THAT(refusal(request_of(0, 5)), HasSubstr("the prompt is empty"));
  EXPECT_THAT(refusal(request_of(513, 5)), HasSubstr("the prompt has 513 tokens, the context of model"));
  EXPECT_THAT(refusal(request_of(101, 5)),
              HasSubstr("the prompt has 101 tokens, the run was planned for at most 100"));
  EXPECT_THAT(refusal(request_of(20, -1)), HasSubstr("max_new_tokens is -1"));
  EXPECT_THAT(
      refusal(request_of(100, 21)),
      HasSubstr("a prompt of 100 tokens with 21 new ones is more than the 120 that the run was planned for"));
}

TEST_F(EngineRefusals, NameTheTokenOutsideTheVocabulary) {
  for (const std::int32_t id : {-1, 96, 50000}) {
    Request request = request_of(20, 5);
    request.prompt_ids[13] = id;
    EXPECT_THAT(refusal(request), HasSubstr(fmt::format("token id {} is outside the vocabulary of 96", id)));
  }
}

TEST_F(EngineRefusals, OfWhatTheRunWasNotPlannedFor) {
  Request stops = request_of(20, 5);
  stops.stop = {"end"};
  EXPECT_THAT(refusal(stops), HasSubstr("stop strings need a tokenizer"));
  Request top = request_of(20, 5);
  top.num_top_logprobs = 3;
  EXPECT_THAT(refusal(top), HasSubstr("3 most likely tokens are wanted, the run was planned for 0"));
  top.num_top_logprobs = -1;
  EXPECT_THAT(refusal(top), HasSubstr("-1 most likely tokens are wanted"));
  Request scores = request_of(20, 5);
  scores.want_prompt_logprobs = true;
  EXPECT_THAT(refusal(scores), HasSubstr("prompt log-probs are wanted, the run was planned without"));
}

TEST_F(EngineRefusals, OfSamplingParametersOutOfRange) {
  Request request = request_of(20, 5);
  request.sampling.temperature = -1.0F;
  EXPECT_THAT(refusal(request), HasSubstr("temperature"));
  request.sampling = {};
  request.sampling.top_p = 1.5F;
  EXPECT_THAT(refusal(request), HasSubstr("top_p"));
  request.sampling = {};
  request.sampling.top_k = -2;
  EXPECT_THAT(refusal(request), HasSubstr("top_k"));
}

TEST_F(EngineRefusals, LeaveTheEngineAsItWas) {
  refusal(request_of(0, 5));
  EXPECT_EQ(engine.submit(request_of(20, 5)), 0) << "a refused request has no number";
  EXPECT_EQ(drain(engine, 1).at(0).token_ids.size(), 5U);
}

TEST(Engine, RefusesAWorkloadBeyondTheContext) {
  EXPECT_THROW(Engine(testing::synthetic(testing::small_spec()), nullptr, options_for(500, 513)), Error);
}

// ---- Without a tokenizer, and the short way in.

TEST(Engine, WorksWithoutATokenizer) {
  const Result result = run_alone({request_of(20, 5)}).at(0);
  EXPECT_EQ(result.token_ids.size(), 5U);
  EXPECT_EQ(result.text, "");
}

TEST(Generate, ReturnsPromptAndOutputOfEachRow) {
  const std::vector<std::vector<std::int32_t>> prompts = {
      testing::prompt_of(20, 96, 1), testing::prompt_of(64, 96, 2), testing::prompt_of(3, 96, 3)};
  Engine engine(testing::synthetic(testing::small_spec()), nullptr, options_for(100, 120));
  const auto rows = offload::generate(engine, prompts, {.max_new_tokens = 8, .stop = {}});
  std::vector<Request> requests;
  for (const auto& prompt : prompts) {
    Request& request = requests.emplace_back();
    request.prompt_ids = prompt;
    request.max_new_tokens = 8;
  }
  const std::vector<Result> expected = run_alone(requests);
  ASSERT_EQ(rows.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    std::vector<std::int32_t> row = prompts[i];
    row.insert(row.end(), expected[i].token_ids.begin(), expected[i].token_ids.end());
    EXPECT_EQ(rows[i], row);
  }
  // A second call on the same engine, with a stop token.
  const std::int32_t stop = expected[0].token_ids[4];
  const auto stopped = offload::generate(engine, {prompts[0]}, {.max_new_tokens = 8, .stop = stop});
  EXPECT_EQ(stopped.at(0).back(), stop);
  EXPECT_LE(stopped.at(0).size(), 25U);
  EXPECT_TRUE(std::equal(stopped[0].begin(), stopped[0].end(), rows[0].begin()));
}

TEST(Generate, Samples) {
  Engine engine(testing::synthetic(testing::small_spec()), nullptr, options_for(100, 120));
  const std::vector<std::vector<std::int32_t>> prompts(2, testing::prompt_of(20, 96, 1));
  const auto rows = offload::generate(
      engine, prompts, {.do_sample = true, .temperature = 1.5F, .max_new_tokens = 12, .stop = {}});
  EXPECT_NE(rows[0], rows[1]) << "rows draw for themselves";
}

}  // namespace
}  // namespace sluice
