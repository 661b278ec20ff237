#include "apps/generate/requests.h"

#include <gmock/gmock.h>

#include "apps/generate/synthetic.h"
#include "tests/apps/temp_dir.h"

namespace sluice::apps {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// One token per byte, id 100 + byte; bos is 2.
class ByteTokenizer final : public Tokenizer {
 public:
  std::vector<std::int32_t> encode(std::string_view text, bool add_bos) const override {
    std::vector<std::int32_t> ids;
    if (add_bos) ids.push_back(2);
    for (unsigned char c : text) ids.push_back(100 + c);
    return ids;
  }
  std::string_view token_bytes(std::int32_t) const override { return {}; }
  bool is_special(std::int32_t) const override { return false; }
  std::int64_t vocab_size() const override { return 400; }
  std::int32_t bos_id() const override { return 2; }
  std::int32_t eos_id() const override { return 2; }
};

class RequestsTest : public ::testing::Test {
 protected:
  RequestsTest() {
    spec_.vocab_size = 400;
    spec_.max_positions = 16;
  }
  RequestLimits limits(bool add_bos = true) const { return {&spec_, &tokenizer_, add_bos}; }
  std::vector<PendingRequest> jsonl(const std::string& text, OnBadRequest on_bad = OnBadRequest::kStop) {
    write_text(dir_ / "in.jsonl", text);
    return requests_from_jsonl(dir_ / "in.jsonl", {}, on_bad);
  }
  /// The message with which the request of this line is refused.
  std::string refusal(const std::string& line, const Tokenizer* tokenizer) {
    std::vector<PendingRequest> requests = jsonl(line);
    try {
      prepare_requests(requests, {&spec_, tokenizer, false}, OnBadRequest::kStop);
    } catch (const Error& e) {
      EXPECT_FALSE(Error(e).what() == nullptr);
      return e.what();
    }
    return "accepted";
  }

  const TempDir dir_;
  const ByteTokenizer tokenizer_;
  ModelSpec spec_;
};

TEST_F(RequestsTest, TokenizesTextWithTheBosInFrontUnlessToldOtherwise) {
  std::vector<PendingRequest> requests = requests_from_texts({"ab"}, {});
  prepare_requests(requests, limits(), OnBadRequest::kStop);
  EXPECT_THAT(requests[0].request.prompt_ids, ElementsAre(2, 197, 198));
  prepare_requests(requests, limits(false), OnBadRequest::kStop);
  EXPECT_THAT(requests[0].request.prompt_ids, ElementsAre(197, 198));
}

TEST_F(RequestsTest, TakesPromptIdsAsTheyAre) {
  std::vector<PendingRequest> requests = jsonl(R"({"prompt_ids": [5]})");
  prepare_requests(requests, {&spec_, nullptr, true}, OnBadRequest::kStop);
  EXPECT_THAT(requests[0].request.prompt_ids, ElementsAre(5));
}

TEST_F(RequestsTest, ReadsOnePromptPerLineOfATextFile) {
  write_text(dir_ / "p.txt", "one\n\n  \ntwo\r\n");
  const std::vector<PendingRequest> requests = requests_from_text_file(dir_ / "p.txt", {});
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_EQ(requests[1].prompt, "two");
  EXPECT_EQ(requests[1].id, "1");
  EXPECT_THAT(requests[1].place, HasSubstr("p.txt:4"));
}

TEST_F(RequestsTest, NumbersRequestsAndLinesApart) {
  const std::vector<PendingRequest> requests = jsonl("\n{\"prompt_ids\": [5]}\n \n{\"prompt_ids\": [6]}\n");
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_EQ(requests[1].id, "1");
  EXPECT_THAT(requests[1].place, HasSubstr(":4"));
}

TEST_F(RequestsTest, StopsAtABadLineOrKeepsGoing) {
  const std::string text =
      "{\"prompt_ids\": [5]}\n{\"id\": \"b\", \"top_p\": 7, \"prompt_ids\": [5]}\n{\"id\":\n";
  try {
    jsonl(text);
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("in.jsonl:2: top_p: 7"));
  }
  const std::vector<PendingRequest> requests = jsonl(text, OnBadRequest::kKeepGoing);
  ASSERT_EQ(requests.size(), 3U);
  EXPECT_TRUE(requests[0].problem.ok());
  EXPECT_EQ(requests[1].problem.code(), Code::kInvalidArgument);
  EXPECT_EQ(requests[1].id, "\"b\"");
  EXPECT_EQ(requests[2].id, "2");
  EXPECT_EQ(work_of(requests).workload.num_requests, 1);
}

TEST_F(RequestsTest, EndsAtTheContextsEnd) {
  std::vector<PendingRequest> requests = jsonl(
      "{\"prompt_ids\": [1,1,1], \"max_new_tokens\": 99}\n{\"prompt_ids\": "
      "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}\n");
  prepare_requests(requests, limits(), OnBadRequest::kStop);
  EXPECT_EQ(requests[0].request.max_new_tokens, 13);
  EXPECT_EQ(requests[1].request.max_new_tokens, 0);
}

TEST_F(RequestsTest, RefusesWhatTheModelCannotRunByName) {
  EXPECT_THAT(refusal(R"({"prompt_ids": [1, 400]})", nullptr),
              HasSubstr("in.jsonl:1: prompt_ids[1]: token id 400"));
  EXPECT_THAT(refusal(R"({"prompt_ids": [1], "stop_ids": [9, 500]})", nullptr),
              HasSubstr("stop_ids[1]: token id 500"));
  EXPECT_THAT(refusal(R"({"prompt_ids": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]})", nullptr),
              HasSubstr("17 tokens and the context holds 16"));
  EXPECT_THAT(refusal(R"({"prompt": "x"})", nullptr), HasSubstr("needs a tokenizer"));
  EXPECT_THAT(refusal(R"({"prompt_ids": [1], "stop": "x"})", nullptr),
              HasSubstr("stop strings need a tokenizer"));
  EXPECT_THAT(refusal(R"({"prompt": ""})", &tokenizer_), HasSubstr("no tokens"));
  EXPECT_THAT(refusal(R"({"prompt_ids": [1], "logprobs": 401})", nullptr), HasSubstr("401 are more than"));
  EXPECT_EQ(refusal(R"({"prompt_ids": [1, 399], "stop_ids": [399], "logprobs": 400})", nullptr), "accepted");
}

TEST_F(RequestsTest, KeepsGoingWithTheRestOfARefusedFile) {
  std::vector<PendingRequest> requests = jsonl("{\"prompt_ids\": [1000]}\n{\"prompt_ids\": [1]}\n");
  prepare_requests(requests, limits(), OnBadRequest::kKeepGoing);
  EXPECT_THAT(requests[0].problem.message(), HasSubstr("in.jsonl:1: prompt_ids[0]: token id 1000"));
  EXPECT_TRUE(requests[1].problem.ok());
}

TEST_F(RequestsTest, WorkloadCoversEveryRequest) {
  std::vector<PendingRequest> requests = jsonl(
      "{\"prompt_ids\": [1,1,1,1,1], \"max_new_tokens\": 2, \"prompt_logprobs\": true}\n"
      "{\"prompt_ids\": [1], \"max_new_tokens\": 8, \"logprobs\": 3}\n");
  prepare_requests(requests, limits(), OnBadRequest::kStop);
  const RunWork run = work_of(requests);
  const policy::Workload& work = run.workload;
  ASSERT_EQ(run.requests.size(), 2U);
  EXPECT_EQ(run.requests[0].prompt_len, 5);
  EXPECT_EQ(run.requests[1].gen_len, 8);
  EXPECT_EQ(work.num_requests, 2);
  EXPECT_EQ(work.max_prompt_len, 5);
  EXPECT_EQ(work.max_gen_len, 8);
  EXPECT_EQ(work.max_total_len, 9);
  EXPECT_EQ(work.max_logprob_rows, 5);
  EXPECT_EQ(work.max_top_logprobs, 3);
}

TEST_F(RequestsTest, HashChangesWithEverythingThatDecidesAResult) {
  const char* const lines[] = {R"({"prompt_ids": [1]})",
                               R"({"prompt_ids": [1,1]})",
                               R"({"id": "x", "prompt_ids": [1]})",
                               R"({"prompt_ids": [1], "max_new_tokens": 3})",
                               R"({"prompt_ids": [1], "do_sample": true})",
                               R"({"prompt_ids": [1], "temperature": 2})",
                               R"({"prompt_ids": [1], "top_k": 2})",
                               R"({"prompt_ids": [1], "top_p": 0.5})",
                               R"({"prompt_ids": [1], "seed": 2})",
                               R"({"prompt_ids": [1], "seed": 0})",
                               R"({"prompt_ids": [1], "stop": "a"})",
                               R"({"prompt_ids": [1], "stop": ["a", "b"]})",
                               R"({"prompt_ids": [1], "stop_ids": [1]})",
                               R"({"prompt_ids": [1], "ignore_eos": true})",
                               R"({"prompt_ids": [1], "logprobs": 0})",
                               R"({"prompt_ids": [1], "logprobs": 1})",
                               R"({"prompt_ids": [1], "prompt_logprobs": true})"};
  std::map<std::uint64_t, std::string> seen;
  for (const char* line : lines) {
    const auto [at, is_new] = seen.emplace(request_hash(jsonl(line)[0]), line);
    EXPECT_TRUE(is_new) << line << " hashes like " << at->second;
  }
  EXPECT_EQ(request_hash(jsonl(lines[0])[0]), request_hash(jsonl(lines[0])[0]));
}

TEST_F(RequestsTest, SyntheticPromptsAreDistinctAndOrdinary) {
  const std::vector<PendingRequest> requests =
      synthetic_requests({.prompt_len = 1, .gen_len = 5, .num_prompts = 300, .seed = 3}, spec_, {});
  std::set<std::vector<std::int32_t>> distinct;
  for (const PendingRequest& pending : requests) {
    distinct.insert(pending.request.prompt_ids);
    EXPECT_EQ(pending.request.max_new_tokens, 5);
    EXPECT_TRUE(pending.request.ignore_eos);
    for (std::int32_t id : pending.request.prompt_ids) EXPECT_TRUE(id != 1 && id != 2 && id < 400) << id;
  }
  EXPECT_EQ(distinct.size(), 300U);
  EXPECT_EQ(requests[7].request.prompt_ids,
            synthetic_requests({.prompt_len = 1, .gen_len = 1, .num_prompts = 8, .seed = 3}, spec_, {})[7]
                .request.prompt_ids);
}

TEST_F(RequestsTest, SyntheticWorkMustFit) {
  EXPECT_THROW(synthetic_requests({.prompt_len = 12, .gen_len = 5, .num_prompts = 1}, spec_, {}), Error);
  EXPECT_THROW(synthetic_requests({.prompt_len = 1, .gen_len = 5, .num_prompts = 399}, spec_, {}), Error);
  EXPECT_NO_THROW(synthetic_requests({.prompt_len = 1, .gen_len = 5, .num_prompts = 398}, spec_, {}));
  EXPECT_THROW(synthetic_requests({.prompt_len = 0, .gen_len = 5, .num_prompts = 1}, spec_, {}), Error);
  EXPECT_THROW(synthetic_requests({.prompt_len = 1, .gen_len = 5, .num_prompts = 0}, spec_, {}), Error);
}

}  // namespace
}  // namespace sluice::apps
