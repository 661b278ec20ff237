#include "apps/generate/run.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "apps/jsonl/result.h"
#include "tests/apps/fake_generator.h"
#include "tests/apps/temp_dir.h"

namespace sluice::apps {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RunTest : public ::testing::Test {
 protected:
  static std::vector<PendingRequest> make_requests(std::int64_t count) {
    std::vector<PendingRequest> requests(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < requests.size(); ++i) {
      requests[i].id = std::to_string(i);
      requests[i].place = fmt::format("in:{}", i + 1);
      requests[i].request.prompt_ids = {static_cast<std::int32_t>(10 + i), 7};
    }
    return requests;
  }

  /// Runs and returns the failure's message, or "" if there is none.
  std::string run(FakeGenerator& generator, std::vector<PendingRequest>& requests, bool resume = false,
                  OnBadRequest on_bad = OnBadRequest::kStop, ResultFormat format = ResultFormat::kJsonl) {
    std::vector<RequestKey> keys;
    for (const PendingRequest& r : requests) {
      keys.push_back({.id = r.id, .prompt_ids = r.request.prompt_ids, .hash = request_hash(r)});
    }
    ResultOutput output({.path = path_, .resume = resume}, {}, keys);
    output.open();
    try {
      run_requests(generator, requests, output, format, on_bad, stop_.get_token(), counts_,
                   [this] { ++calls_; });
    } catch (const Error& e) {
      code_ = e.code();
      return e.what();
    }
    return "";
  }

  std::vector<std::string> ids() const {
    std::istringstream text(read_text(path_));
    std::vector<std::string> result;
    for (std::string line; std::getline(text, line);)
      result.push_back(nlohmann::json::parse(line).at("id").dump());
    return result;
  }

  const TempDir dir_;
  const std::string path_ = dir_ / "out.jsonl";
  std::stop_source stop_;
  RunCounts counts_;
  int calls_ = 0;
  Code code_ = Code::kOk;
};

TEST_F(RunTest, WritesEachRequestsOwnResultInInputOrder) {
  FakeGenerator generator;
  generator.order = {2, 0, 3, 1};
  std::vector<PendingRequest> requests = make_requests(4);
  EXPECT_EQ(run(generator, requests), "");
  EXPECT_THAT(ids(), ElementsAre("0", "1", "2", "3"));
  EXPECT_THAT(read_text(path_), HasSubstr(R"({"id":2,"prompt_ids":[12,7],"token_ids":[7,12],"text":"12!")"));
  EXPECT_EQ(counts_.done, 4);
  EXPECT_EQ(calls_, 1 + 4 * (2 + 1)) << "at the start, with each token and each result";
}

TEST_F(RunTest, FlushesFinishedResultsOnCtrlCAndResumesInOrder) {
  FakeGenerator generator;
  generator.order = {3, 0, 1, 2};
  generator.before_result = [&](std::int64_t done) {
    if (done == 2) stop_.request_stop();
  };
  std::vector<PendingRequest> requests = make_requests(4);
  EXPECT_THAT(run(generator, requests), HasSubstr("stopped after 2 of 4"));
  EXPECT_EQ(code_, Code::kCancelled);
  EXPECT_THAT(ids(), ElementsAre("0", "3"));

  stop_ = {};
  FakeGenerator second;
  EXPECT_EQ(run(second, requests, /*resume=*/true), "");
  EXPECT_EQ(second.submitted().size(), 2U) << "finished requests are skipped";
  EXPECT_THAT(ids(), ElementsAre("0", "1", "2", "3"));
  EXPECT_EQ(counts_.done_before, 2);
}

TEST_F(RunTest, TellsDrawsApartByTheInputAndNotByWhatIsLeftToRun) {
  std::vector<PendingRequest> requests = make_requests(3);
  requests[1].has_seed = true;
  requests[0].problem = {Code::kInvalidArgument, "no"};
  FakeGenerator generator;
  EXPECT_EQ(run(generator, requests, false, OnBadRequest::kKeepGoing), "");
  ASSERT_EQ(generator.submitted().size(), 2U);
  EXPECT_EQ(generator.submitted()[0].draw_key, 0U) << "a seed of its own decides alone";
  EXPECT_EQ(generator.submitted()[1].draw_key, 2U) << "the number in the input";
}

TEST_F(RunTest, KeepsFinishedResultsWhenTheEngineFails) {
  FakeGenerator generator;
  generator.order = {1, 0, 2};
  generator.failure = Error(Code::kIo, "the disk is gone", "mend it");
  generator.fail_after = 2;
  std::vector<PendingRequest> requests = make_requests(3);
  EXPECT_THAT(run(generator, requests), HasSubstr("the disk is gone"));
  EXPECT_EQ(code_, Code::kIo);
  EXPECT_THAT(ids(), ElementsAre("0", "1"));
}

TEST_F(RunTest, StopsTheEngineWhenTheOutputFails) {
  std::vector<PendingRequest> requests = make_requests(50);
  std::vector<RequestKey> keys(requests.size());
  ResultOutput output({.path = "/dev/full"}, {}, keys);
  output.open();
  FakeGenerator generator;
  try {
    run_requests(generator, requests, output, ResultFormat::kJsonl, OnBadRequest::kStop, stop_.get_token(),
                 counts_, [] {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kIo);
    EXPECT_THAT(e.what(), HasSubstr("No space left"));
  }
  EXPECT_EQ(counts_.done, 0);
}

TEST_F(RunTest, WritesErrorLinesInPlaceAndRunsTheRest) {
  std::vector<PendingRequest> requests = make_requests(4);
  requests[1].problem = {Code::kInvalidArgument, "in:2: bad"};
  FakeGenerator generator;
  generator.refused_tokens = {12};
  EXPECT_EQ(run(generator, requests, false, OnBadRequest::kKeepGoing), "");
  EXPECT_THAT(ids(), ElementsAre("0", "1", "2", "3"));
  EXPECT_THAT(read_text(path_),
              HasSubstr(R"({"id":1,"error":{"message":"in:2: bad","code":"invalid_argument"}})"));
  EXPECT_THAT(read_text(path_), HasSubstr("in:3: the engine refuses this; ask another"));
  EXPECT_THAT(read_text(path_), HasSubstr(R"({"id":3,"prompt_ids":[13,7])"))
      << "numbers of the engine are mapped back";
  EXPECT_EQ(counts_.refused, 2);
}

TEST_F(RunTest, StopsBeforeTheFirstTokenWhenTheEngineRefusesARequest) {
  std::vector<PendingRequest> requests = make_requests(3);
  FakeGenerator generator;
  generator.refused_tokens = {12};
  generator.before_result = [](std::int64_t) { FAIL() << "ran"; };
  EXPECT_THAT(run(generator, requests), HasSubstr("in:3: the engine refuses this"));
  EXPECT_EQ(read_text(path_), "");
}

TEST_F(RunTest, PrintsPromptAndContinuationForPeople) {
  std::vector<PendingRequest> requests = make_requests(1);
  requests[0].prompt = "Once ";
  FakeGenerator one;
  EXPECT_EQ(run(one, requests, false, OnBadRequest::kStop, ResultFormat::kText), "");
  EXPECT_EQ(read_text(path_), "Once 10!\n");
  requests = make_requests(2);
  FakeGenerator two;
  EXPECT_EQ(run(two, requests, false, OnBadRequest::kStop, ResultFormat::kText), "");
  EXPECT_EQ(read_text(path_), "=== 0 (2 + 2 tokens)\n10!\n=== 1 (2 + 2 tokens)\n11!\n");
}

}  // namespace
}  // namespace sluice::apps
