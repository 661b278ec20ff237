#include "apps/output/result_output.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "tests/apps/temp_dir.h"

namespace sluice::apps {
namespace {

using ::testing::HasSubstr;

class ResultOutputTest : public ::testing::Test {
 protected:
  std::vector<RequestKey> keys(std::int64_t count) const {
    std::vector<RequestKey> result;
    for (std::int64_t i = 0; i < count; ++i) {
      result.push_back(
          {.id = std::to_string(i), .prompt_ids = prompts_.at(i), .hash = static_cast<std::uint64_t>(i)});
    }
    return result;
  }
  static std::string line(std::int64_t i) {
    return fmt::format("{{\"id\":{},\"prompt_ids\":[{}],\"token_ids\":[1]}}\n", i, 10 + i);
  }
  static std::string lines(std::initializer_list<std::int64_t> indices) {
    std::string text;
    for (std::int64_t i : indices) text += line(i);
    return text;
  }
  ResultOutput open(bool resume, std::int64_t count = 5) {
    ResultOutput output({.path = path_, .resume = resume}, record_, keys(count));
    output.open();
    return output;
  }
  /// Runs until these are done and then is killed.
  void killed_run(std::initializer_list<std::int64_t> indices) {
    ResultOutput output = open(false);
    for (std::int64_t i : indices) output.put(i, line(i));
  }
  std::string resume_failure(std::int64_t count = 5) {
    try {
      open(true, count);
    } catch (const Error& e) {
      return e.what();
    }
    return "resumed";
  }

  const TempDir dir_;
  const std::string path_ = dir_ / "out.jsonl";
  const std::vector<std::vector<std::int32_t>> prompts_ = {{10}, {11}, {12}, {13}, {14}, {15}, {16}};
  RunRecord record_ = [] {
    RunRecord record;
    record.model = "m1";
    record.options["kv_format"] = "fp16";
    return record;
  }();
};

TEST_F(ResultOutputTest, LeavesOutputAndACompleteRecord) {
  ResultOutput output = open(false, 2);
  output.put(1, line(1));
  output.put(0, line(0));
  output.finish();
  EXPECT_EQ(read_text(path_), lines({0, 1}));
  EXPECT_TRUE(read_run_record(path_)->complete);
  EXPECT_FALSE(std::filesystem::exists(waiting_path(path_)));
}

TEST_F(ResultOutputTest, ContinuesAKilledRunWithoutLosingWhatWaited) {
  killed_run({0, 1, 3});
  EXPECT_EQ(read_text(path_), lines({0, 1}));
  ResultOutput output = open(true);
  EXPECT_EQ(output.num_done_before(), 3);
  EXPECT_TRUE(output.is_done(0) && output.is_done(1) && !output.is_done(2) && output.is_done(3));
  output.put(4, line(4));
  output.put(2, line(2));
  output.finish();
  EXPECT_EQ(read_text(path_), lines({0, 1, 2, 3, 4}));
}

TEST_F(ResultOutputTest, ContinuesAnInterruptedRunInOrderAcrossItsGaps) {
  {
    ResultOutput output = open(false);
    for (std::int64_t i : {0, 3, 2}) output.put(i, line(i));
    output.finish_early();
  }
  EXPECT_EQ(read_text(path_), lines({0, 2, 3}));
  EXPECT_FALSE(read_run_record(path_)->complete);
  EXPECT_FALSE(std::filesystem::exists(waiting_path(path_)));
  ResultOutput output = open(true);
  EXPECT_EQ(output.num_done_before(), 3);
  EXPECT_EQ(read_text(path_), lines({0})) << "what is behind the gap waits";
  output.put(1, line(1));
  output.put(4, line(4));
  output.finish();
  EXPECT_EQ(read_text(path_), lines({0, 1, 2, 3, 4}));
}

TEST_F(ResultOutputTest, DropsATornLastLineAtEveryLength) {
  killed_run({0, 1});
  for (std::size_t cut = line(0).size(); cut < lines({0, 1}).size(); ++cut) {
    write_text(path_, lines({0, 1}).substr(0, cut));
    ResultOutput output = open(true);
    EXPECT_EQ(output.num_done_before(), 1) << cut;
    EXPECT_EQ(read_text(path_), line(0)) << cut;
  }
}

TEST_F(ResultOutputTest, HasNothingLeftToDoAfterACompleteRun) {
  {
    ResultOutput output = open(false, 2);
    output.put(0, line(0));
    output.put(1, line(1));
    output.finish();
  }
  ResultOutput output = open(true, 2);
  EXPECT_EQ(output.num_done_before(), 2);
  output.finish();
  EXPECT_EQ(read_text(path_), lines({0, 1}));
}

TEST_F(ResultOutputTest, TakesALongerInput) {
  killed_run({0});
  EXPECT_EQ(open(true, 7).num_done_before(), 1);
}

TEST_F(ResultOutputTest, CountsARefusedRequestAsDone) {
  killed_run({});
  write_text(path_, "{\"id\":0,\"error\":{\"message\":\"no\",\"code\":\"invalid_argument\"}}\n");
  EXPECT_EQ(open(true).num_done_before(), 1);
}

TEST_F(ResultOutputTest, StartsWhenThereIsNothingToResume) { EXPECT_EQ(open(true).num_done_before(), 0); }

TEST_F(ResultOutputTest, RefusesAnotherConfigurationByName) {
  killed_run({0});
  record_.options["kv_format"] = "fp32";
  EXPECT_THAT(resume_failure(), HasSubstr("kv_format was fp16 and is fp32"));
  record_.options["kv_format"] = "fp16";
  record_.options["seed"] = "7";
  EXPECT_THAT(resume_failure(), HasSubstr("seed was unset and is 7"));
  record_.options.erase("seed");
  record_.model = "m2";
  EXPECT_THAT(resume_failure(), HasSubstr("model was m1 and is m2"));
  EXPECT_EQ(read_text(path_), line(0)) << "a refusal touches nothing";
}

TEST_F(ResultOutputTest, RefusesAnotherInput) {
  killed_run({0});
  EXPECT_THAT(resume_failure(4), HasSubstr("5 requests and the input has 4"));
  std::vector<RequestKey> changed = keys(5);
  changed[4].hash = 99;
  EXPECT_THROW(ResultOutput({.path = path_, .resume = true}, record_, changed), Error);
  EXPECT_EQ(read_text(path_), line(0));
}

TEST_F(ResultOutputTest, RefusesAnOutputThatDoesNotFitTheInput) {
  killed_run({0});
  const struct {
    std::string text;
    const char* message;
  } cases[] = {
      {line(0) + "not json\n", ":2: is no result"},
      {line(0) + "{\"id\":1}\n", ":2: is no result"},
      {line(0) + "{\"id\":\"x\",\"prompt_ids\":[1],\"token_ids\":[]}\n", ":2: id \"x\" is not in the input"},
      {line(0) + line(0), ":2: id 0 has a line already"},
      {"{\"id\":0,\"prompt_ids\":[11],\"token_ids\":[]}\n", ":1: the prompt of id 0 differs"},
      {"{\"id\":0,\"prompt_ids\":3,\"token_ids\":[]}\n", ":1: the prompt of id 0 differs"},
  };
  for (const auto& c : cases) {
    write_text(path_, c.text);
    EXPECT_THAT(resume_failure(), HasSubstr(c.message));
    EXPECT_EQ(read_text(path_), c.text);
  }
}

TEST_F(ResultOutputTest, RefusesToResumeWithoutARecord) {
  write_text(path_, line(0));
  EXPECT_THAT(resume_failure(), HasSubstr("out.jsonl.sluice.json does not exist"));
  write_text(run_record_path(path_), "{}");
  EXPECT_THAT(resume_failure(), HasSubstr("not the record of a run"));
}

TEST_F(ResultOutputTest, RefusesToResumeRequestsWithEqualIds) {
  killed_run({0});
  std::vector<RequestKey> same = keys(5);
  same[4].id = "0";
  EXPECT_THROW(ResultOutput({.path = path_, .resume = true}, record_, same), Error);
}

TEST_F(ResultOutputTest, NeverOverwritesAnUnfinishedRun) {
  killed_run({0});
  EXPECT_THROW(open(false), Error);
  EXPECT_EQ(read_text(path_), line(0));
  std::filesystem::remove(path_);
  EXPECT_EQ(open(false).num_done_before(), 0);
}

TEST_F(ResultOutputTest, TouchesNothingBeforeItIsOpened) {
  {
    ResultOutput output = open(false, 1);
    output.put(0, line(0));
    output.finish();
  }
  const RunRecord before = *read_run_record(path_);
  { const ResultOutput output({.path = path_}, record_, keys(2)); }
  EXPECT_EQ(read_text(path_), line(0));
  EXPECT_EQ(*read_run_record(path_), before);
}

TEST_F(ResultOutputTest, NeverOverwritesAKilledRunThatOnlyHasWaitingResults) {
  killed_run({2});
  EXPECT_THROW(open(false), Error);
  EXPECT_EQ(open(true).num_done_before(), 1);
}

TEST_F(ResultOutputTest, RefusesToResumeAStream) {
  EXPECT_THROW(ResultOutput({.path = "-", .resume = true}, record_, {}), Error);
  EXPECT_THROW(ResultOutput({.path = "/dev/null", .resume = true}, record_, {}), Error);
}

TEST_F(ResultOutputTest, ReportsAFullDiskAndKeepsNoSideFilesForADevice) {
  ResultOutput output({.path = "/dev/full"}, record_, keys(2));
  output.open();
  output.put(1, line(1));
  EXPECT_THROW(output.put(0, line(0)), Error);
  EXPECT_FALSE(std::filesystem::exists(run_record_path("/dev/full")));
}

}  // namespace
}  // namespace sluice::apps
