#include <limits>

#include <gmock/gmock.h>

#include "apps/jsonl/request.h"

namespace sluice::apps {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

RequestLine parse(std::string_view line, const offload::Request& defaults = {}) {
  return parse_request_line(line, {.file = "in.jsonl", .line = 7, .request = 4}, defaults);
}

std::string failure(std::string_view line) {
  try {
    parse(line);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kInvalidArgument);
    EXPECT_FALSE(e.fix().empty()) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "accepted: " << line;
  return {};
}

TEST(RequestLine, TakesTheDocumentedDefaults) {
  const RequestLine line = parse(R"({"prompt": "Hello"})");
  EXPECT_EQ(line.id, "4");
  EXPECT_EQ(line.prompt, "Hello");
  EXPECT_FALSE(line.has_seed);
  const offload::Request& r = line.request;
  EXPECT_THAT(r.prompt_ids, IsEmpty());
  EXPECT_EQ(r.max_new_tokens, 32);
  EXPECT_EQ(r.sampling, SamplingParams{});
  EXPECT_THAT(r.stop, IsEmpty());
  EXPECT_THAT(r.stop_ids, IsEmpty());
  EXPECT_FALSE(r.ignore_eos);
  EXPECT_FALSE(r.want_logprobs);
  EXPECT_FALSE(r.want_prompt_logprobs);
}

TEST(RequestLine, ReadsEveryField) {
  const RequestLine line =
      parse(R"({"id": "a\"b", "prompt_ids": [2, 0, 77], "max_new_tokens": 5, "do_sample": true,
      "temperature": 0.5, "top_k": 40, "top_p": 0.25, "seed": 18446744073709551615, "stop": ["x", "\n"],
      "stop_ids": [9], "ignore_eos": true, "logprobs": 3, "prompt_logprobs": true})");
  EXPECT_EQ(line.id, R"("a\"b")");
  EXPECT_FALSE(line.prompt.has_value());
  EXPECT_TRUE(line.has_seed);
  const offload::Request& r = line.request;
  EXPECT_THAT(r.prompt_ids, ElementsAre(2, 0, 77));
  EXPECT_EQ(r.max_new_tokens, 5);
  EXPECT_TRUE(r.sampling.do_sample);
  EXPECT_EQ(r.sampling.temperature, 0.5F);
  EXPECT_EQ(r.sampling.top_k, 40);
  EXPECT_EQ(r.sampling.top_p, 0.25F);
  EXPECT_EQ(r.sampling.seed, std::numeric_limits<std::uint64_t>::max());
  EXPECT_THAT(r.stop, ElementsAre("x", "\n"));
  EXPECT_THAT(r.stop_ids, ElementsAre(9));
  EXPECT_TRUE(r.ignore_eos);
  EXPECT_TRUE(r.want_logprobs);
  EXPECT_EQ(r.num_top_logprobs, 3);
  EXPECT_TRUE(r.want_prompt_logprobs);
}

TEST(RequestLine, PrefersItsOwnFieldsToTheFlags) {
  offload::Request flags;
  flags.max_new_tokens = 7;
  flags.stop = {"flag"};
  flags.sampling.top_k = 5;
  const RequestLine line = parse(R"({"prompt": "x", "stop": "own", "top_k": 0})", flags);
  EXPECT_EQ(line.request.max_new_tokens, 7);
  EXPECT_THAT(line.request.stop, ElementsAre("own"));
  EXPECT_EQ(line.request.sampling.top_k, 0);
}

TEST(RequestLine, TakesNullForAbsent) {
  const RequestLine line =
      parse(R"({"id": null, "prompt_ids": [3], "prompt": null, "stop": null, "seed": null,
      "logprobs": null, "max_new_tokens": null})");
  EXPECT_EQ(line.id, "4");
  EXPECT_EQ(line.request.max_new_tokens, 32);
  EXPECT_FALSE(line.has_seed);
  EXPECT_FALSE(line.request.want_logprobs);
}

TEST(RequestLine, WantsLogprobsOfTheChosenTokensAloneWithZero) {
  const RequestLine line = parse(R"({"prompt": "x", "logprobs": 0})");
  EXPECT_TRUE(line.request.want_logprobs);
  EXPECT_EQ(line.request.num_top_logprobs, 0);
}

TEST(RequestLine, ScoresWithZeroNewTokens) {
  EXPECT_EQ(parse(R"({"prompt": "x", "max_new_tokens": 0})").request.max_new_tokens, 0);
}

TEST(RequestLine, NamesFileLineFieldAndRemedy) {
  EXPECT_THAT(failure(R"({"prompt": "x", "temperature": -1})"),
              AllOf(StartsWith("in.jsonl:7: temperature: -1 is out of range; "), HasSubstr("from 0")));
}

struct BadLine {
  const char* line;
  const char* message;
};

class BadRequestLine : public ::testing::TestWithParam<BadLine> {};

TEST_P(BadRequestLine, IsRefusedByName) {
  EXPECT_THAT(failure(GetParam().line), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Each, BadRequestLine,
    ::testing::Values(BadLine{"", "not valid JSON"}, BadLine{"{", "not valid JSON"},
                      BadLine{"{\"prompt\": \"\xff\"}", "not valid JSON"},
                      BadLine{"{\"prompt\": \"\\ud800\"}", "not valid JSON"},
                      BadLine{"{\"prompt\": \"a\"} x", "not valid JSON"}, BadLine{"[]", "the line is array"},
                      BadLine{"3", "the line is number"},
                      BadLine{R"({"promt": "x"})", "promt: unknown field; did you mean 'prompt'"},
                      BadLine{R"({"prompt": "x", "max_tokens": 3})", "max_new_tokens"},
                      BadLine{R"({"prompt": "x", "prompt": "y"})", "prompt: is given twice"},
                      BadLine{"{}", "no prompt"},
                      BadLine{R"({"prompt": "x", "prompt_ids": [1]})", "both given"},
                      BadLine{R"({"prompt": 1})", "prompt: is number"},
                      BadLine{R"({"prompt_ids": []})", "prompt_ids: is empty"},
                      BadLine{R"({"prompt_ids": "x"})", "not a list"},
                      BadLine{R"({"prompt_ids": [1, "x"]})", "entry 1 is string"},
                      BadLine{R"({"prompt_ids": [1.0]})", "entry 0 is number"},
                      BadLine{R"({"prompt_ids": [-1]})", "-1 is out of range"},
                      BadLine{R"({"prompt_ids": [2147483648]})", "2147483648 is out of range"},
                      BadLine{R"({"prompt": "x", "id": 1.5})", "id: is number"},
                      BadLine{R"({"prompt": "x", "id": []})", "id: is array"},
                      BadLine{R"({"prompt": "x", "max_new_tokens": -1})", "max_new_tokens: -1"},
                      BadLine{R"({"prompt": "x", "max_new_tokens": 1.5})", "max_new_tokens: is number"},
                      BadLine{R"({"prompt": "x", "max_new_tokens": 18446744073709551615})",
                              "max_new_tokens: 18446744073709551615"},
                      BadLine{R"({"prompt": "x", "do_sample": 1})", "do_sample: is number"},
                      BadLine{R"({"prompt": "x", "temperature": "hot"})", "temperature: is string"},
                      BadLine{R"({"prompt": "x", "temperature": 1e300})", "temperature: 1e+300"},
                      BadLine{R"({"prompt": "x", "temperature": 1e999})", "not valid JSON"},
                      BadLine{R"({"prompt": "x", "top_k": -3})", "top_k: -3"},
                      BadLine{R"({"prompt": "x", "top_p": 0})", "top_p: 0"},
                      BadLine{R"({"prompt": "x", "top_p": 1.01})", "top_p: 1.01"},
                      BadLine{R"({"prompt": "x", "top_p": 1e-60})", "top_p: 1e-60"},
                      BadLine{R"({"prompt": "x", "seed": -1})", "seed: -1"},
                      BadLine{R"({"prompt": "x", "seed": 0.5})", "seed: is number"},
                      BadLine{R"({"prompt": "x", "stop": 3})", "stop: holds number"},
                      BadLine{R"({"prompt": "x", "stop": ""})", "empty string"},
                      BadLine{R"({"prompt": "x", "stop": ["a", 1]})", "stop: holds number"},
                      BadLine{R"({"prompt": "x", "stop_ids": 3})", "stop_ids: is number, not a list"},
                      BadLine{R"({"prompt": "x", "ignore_eos": "no"})", "ignore_eos: is string"},
                      BadLine{R"({"prompt": "x", "logprobs": true})", "logprobs: is boolean"},
                      BadLine{R"({"prompt": "x", "logprobs": -1})", "logprobs: -1"},
                      BadLine{R"({"prompt": "x", "logprobs": 1001})", "logprobs: 1001"},
                      BadLine{R"({"prompt": "x", "prompt_logprobs": 1})", "prompt_logprobs: is number"}));

TEST(IdOfLine, FindsTheIdOfALineThatCannotRun) {
  const LinePosition at{.file = "in", .line = 3, .request = 2};
  EXPECT_EQ(id_of_line(R"({"id": "q7", "top_p": 9})", at), R"("q7")");
  EXPECT_EQ(id_of_line(R"({"id": 12})", at), "12");
  EXPECT_EQ(id_of_line(R"({"id": [12]})", at), "2");
  EXPECT_EQ(id_of_line(R"({"id": "torn)", at), "2");
  EXPECT_EQ(id_of_line("\xff", at), "2");
}

}  // namespace
}  // namespace sluice::apps
