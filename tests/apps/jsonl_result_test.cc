#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "apps/jsonl/result.h"

namespace sluice::apps {
namespace {

using nlohmann::json;

TEST(ResultLine, HasTheDocumentedFieldsInOrder) {
  const std::vector<std::int32_t> prompt = {2, 11};
  offload::Result result;
  result.token_ids = {5, 2};
  result.text = "Hi \"you\"\n";
  result.finish_reason = offload::FinishReason::kEos;
  EXPECT_EQ(result_line({.id = "\"a\"", .prompt_ids = prompt}, result),
            "{\"id\":\"a\",\"prompt_ids\":[2,11],\"token_ids\":[5,2],\"text\":\"Hi \\\"you\\\"\\n\","
            "\"finish_reason\":\"eos\"}\n");
}

TEST(ResultLine, SpellsEveryFinishReason) {
  offload::Result result;
  const auto reason = [&](offload::FinishReason r) {
    result.finish_reason = r;
    return json::parse(result_line({.id = "0", .prompt_ids = {}}, result))
        .at("finish_reason")
        .get<std::string>();
  };
  EXPECT_EQ(reason(offload::FinishReason::kEos), "eos");
  EXPECT_EQ(reason(offload::FinishReason::kStop), "stop");
  EXPECT_EQ(reason(offload::FinishReason::kLength), "length");
}

TEST(ResultLine, WritesLogprobsThatReadBackAsTheSameFloat) {
  const std::vector<std::int32_t> prompt = {2, 11, 12};
  offload::Result result;
  result.token_ids = {5};
  result.logprobs = {{.token_id = 5, .logprob = -0.1F, .top = {{5, -0.1F}, {9, -3.4028235e38F}}}};
  result.prompt_logprobs = {-1.25F, -7.0000005F};
  const std::string line = result_line(
      {.id = "3", .prompt_ids = prompt, .want_logprobs = true, .want_prompt_logprobs = true}, result);
  EXPECT_THAT(line, ::testing::HasSubstr("\"logprob\":-0.1,"));  // shortest, not -0.10000000149
  const json parsed = json::parse(line);
  const json& token = parsed.at("logprobs").at(0);
  EXPECT_EQ(token.at("token_id"), 5);
  EXPECT_EQ(token.at("logprob").get<float>(), -0.1F);
  EXPECT_EQ(token.at("top").at(1).at("token_id"), 9);
  EXPECT_EQ(token.at("top").at(1).at("logprob").get<float>(), -3.4028235e38F);
  EXPECT_TRUE(parsed.at("prompt_logprobs").at(0).is_null());
  EXPECT_EQ(parsed.at("prompt_logprobs").size(), prompt.size());
  EXPECT_EQ(parsed.at("prompt_logprobs").at(2).get<float>(), -7.0000005F);
}

TEST(ResultLine, StaysJsonWhenALogprobIsNotFinite) {
  offload::Result result;
  result.prompt_logprobs = {-std::numeric_limits<float>::infinity(), std::nanf("")};
  const json parsed =
      json::parse(result_line({.id = "3", .prompt_ids = {}, .want_prompt_logprobs = true}, result));
  EXPECT_TRUE(parsed.at("prompt_logprobs").at(1).is_null());
  EXPECT_TRUE(parsed.at("prompt_logprobs").at(2).is_null());
}

TEST(ResultLine, LeavesOutWhatWasNotAskedFor) {
  offload::Result result;
  result.logprobs.resize(1);
  result.prompt_logprobs.resize(1);
  const json parsed = json::parse(result_line({.id = "3", .prompt_ids = {}}, result));
  EXPECT_FALSE(parsed.contains("logprobs"));
  EXPECT_FALSE(parsed.contains("prompt_logprobs"));
}

TEST(ResultLine, ReplacesBytesThatAreNotUtf8) {
  offload::Result result;
  result.text = "a\xff\xc3";
  EXPECT_EQ(json::parse(result_line({.id = "3", .prompt_ids = {}}, result)).at("text"), "a\uFFFD\uFFFD");
  EXPECT_EQ(json::parse(error_line("3", {Code::kIo, "x\xfe"})).at("error").at("message"), "x\uFFFD");
}

TEST(ErrorLine, CarriesMessageAndCode) {
  const json parsed = json::parse(error_line("\"q\"", {Code::kInvalidArgument, "line 3: no"}));
  EXPECT_EQ(parsed,
            json::parse(R"({"id": "q", "error": {"message": "line 3: no", "code": "invalid_argument"}})"));
}

}  // namespace
}  // namespace sluice::apps
