// `sluice generate` through the program itself: streams, configurations, interrupts and resumed runs.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <thread>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "tests/apps/cli_fixture.h"

namespace sluice::apps {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::StartsWith;

/// Requests that sample, so that a resumed run must draw the same.
std::string many_requests(int count, int max_new_tokens) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    json request = {{"id", fmt::format("r{}", i)},
                    {"prompt_ids", {2, 40 + i, 50}},
                    {"max_new_tokens", max_new_tokens - 7 * (i % 5)},
                    {"do_sample", true},
                    {"ignore_eos", true}};
    if (i % 3 == 0) request["seed"] = i;
    text += request.dump() + "\n";
  }
  return text;
}

/// Interrupts a run with `signal` once its output has some lines, and returns its exit status.
int interrupt(const std::vector<std::string>& args, const std::string& output, int signal) {
  RunningProgram program(args);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (lines_of(read_text(output)).size() < 3 && program.is_running()) {
    if (std::chrono::steady_clock::now() > deadline) {
      ADD_FAILURE() << "no results after a minute";
      return -1;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_TRUE(program.is_running()) << "it was done before it could be interrupted";
  if (program.is_running()) program.signal(signal);
  return program.wait();
}

TEST_F(GenerateTest, ContinuesATextOnStandardOutputAlone) {
  const ProgramResult result = run({"The old man", "--max-new-tokens", "5"});
  EXPECT_EQ(result.status, 0);
  EXPECT_THAT(result.out, StartsWith("The old man"));
  EXPECT_GT(result.out.size(), std::string("The old man\n").size());
  EXPECT_EQ(result.err, "");
}

TEST_F(GenerateTest, ReportsTheRunOnStandardError) {
  const ProgramResult result =
      run_program({"generate", "--model", *suite_dir / "store", "The old man", "--max-new-tokens", "5"});
  EXPECT_THAT(result.err, HasSubstr("1 of 1 done"));
  EXPECT_THAT(result.err, HasSubstr("peak resident size"));
  EXPECT_THAT(result.out, Not(HasSubstr("done")));
}

TEST_F(GenerateTest, AnswersJsonlOnTheStandardStreams) {
  const ProgramResult result =
      run({"--input", "-"},
          "{\"id\": \"x\", \"prompt\": \"Hello\", \"max_new_tokens\": 3, \"logprobs\": 2}\n\n"
          "{\"prompt_ids\": [2, 9, 11], \"max_new_tokens\": 0, \"prompt_logprobs\": true}\n");
  EXPECT_EQ(result.status, 0) << result.err;
  const std::vector<std::string> lines = lines_of(result.out);
  ASSERT_EQ(lines.size(), 2U);
  const json first = json::parse(lines[0]);
  EXPECT_EQ(first.at("id"), "x");
  EXPECT_EQ(first.at("prompt_ids").at(0), 2) << "bos in front";
  EXPECT_EQ(first.at("token_ids").size(), 3U);
  EXPECT_EQ(first.at("finish_reason"), "length");
  ASSERT_EQ(first.at("logprobs").size(), 3U);
  const json& token = first.at("logprobs").at(0);
  EXPECT_EQ(token.at("token_id"), first.at("token_ids").at(0));
  EXPECT_EQ(token.at("top").size(), 2U);
  EXPECT_EQ(token.at("top").at(0).at("logprob"), token.at("logprob")) << "greedy takes the most likely";
  const json second = json::parse(lines[1]);
  EXPECT_EQ(second.at("id"), 1);
  EXPECT_EQ(second.at("token_ids").size(), 0U);
  ASSERT_EQ(second.at("prompt_logprobs").size(), 3U);
  EXPECT_TRUE(second.at("prompt_logprobs").at(0).is_null());
  EXPECT_LT(second.at("prompt_logprobs").at(2).get<float>(), 0);
}

TEST_F(GenerateTest, EndsWithLengthAtTheContextsEnd) {
  json ids = json::array({2});
  for (int i = 1; i < 1020; ++i) ids.push_back(10 + i % 50);
  const ProgramResult result =
      run({"--input", "-"},
          json{{"prompt_ids", ids}, {"max_new_tokens", 100}, {"ignore_eos", true}}.dump() + "\n");
  EXPECT_EQ(result.status, 0) << result.err;
  const json answer = json::parse(result.out);
  EXPECT_EQ(answer.at("token_ids").size(), 4U);
  EXPECT_EQ(answer.at("finish_reason"), "length");
}

TEST_F(GenerateTest, EndsTheTextBeforeAStopStringAndKeepsTheTokens) {
  const json free =
      json::parse(run({"--input", "-"}, R"({"prompt": "The old man", "max_new_tokens": 12})").out);
  const std::string text = free.at("text");
  ASSERT_GT(text.size(), 8U);
  const std::string stop = text.substr(5, 3);
  const json stopped = json::parse(
      run({"--input", "-"}, json{{"prompt", "The old man"}, {"max_new_tokens", 12}, {"stop", stop}}.dump())
          .out);
  EXPECT_EQ(stopped.at("finish_reason"), "stop");
  EXPECT_EQ(stopped.at("text"), text.substr(0, text.find(stop)));
  EXPECT_LE(stopped.at("token_ids").size(), free.at("token_ids").size());
}

TEST_F(GenerateTest, TakesPromptsFromAFile) {
  write_text(dir_ / "prompts.txt", "One\n\nTwo\n");
  const ProgramResult result =
      run({"--prompts-file", dir_ / "prompts.txt", "--output", dir_ / "out.jsonl", "--gen-len", "2"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(lines_of(read_text(dir_ / "out.jsonl")).size(), 2U);
}

TEST_F(GenerateTest, PrintsAConfigurationThatReadsBackAndFlagsWin) {
  const std::vector<std::string> flags = {
      "--percent", "20",       "80",          "0",    "100",           "0",  "100",
      "--stop",    "a: \"b\"", "--kv-format", "fp32", "--temperature", "0.7"};
  const ProgramResult first = run_program(std::vector<std::string>{"generate", "--print-config"} + flags);
  EXPECT_EQ(first.status, 0) << first.err;
  EXPECT_THAT(first.out, HasSubstr("prefetch_depth: 0")) << "0 and null are chosen";
  EXPECT_THAT(first.out, HasSubstr("cpu_cache_compute: ~"));
  write_text(dir_ / "config.yaml", first.out);
  const ProgramResult second =
      run_program({"generate", "--print-config", "--run-config", dir_ / "config.yaml"});
  EXPECT_EQ(second.out, first.out) << second.err;
  const ProgramResult third =
      run_program({"generate", "--print-config", "--run-config", dir_ / "config.yaml", "--set",
                   "generation.top_k=5", "--top-k", "6", "--set", "generation.seed=9"});
  EXPECT_THAT(third.out, HasSubstr("top_k: 6"));
  EXPECT_THAT(third.out, HasSubstr("seed: 9"));
  EXPECT_THAT(third.out, HasSubstr("temperature: 0.7"));
}

TEST_F(GenerateTest, KeepsGoingPastLinesThatCannotRun) {
  const ProgramResult result = run(
      {"--input", "-", "--keep-going"},
      "{\"prompt_ids\": [5], \"max_new_tokens\": 2}\nnonsense\n{\"id\": \"long\", \"prompt_ids\": [99999]}\n"
      "{\"prompt_ids\": [6], \"max_new_tokens\": 2}\n");
  EXPECT_EQ(result.status, 0) << result.err;
  const std::vector<std::string> lines = lines_of(result.out);
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_EQ(json::parse(lines[0]).at("token_ids").size(), 2U);
  EXPECT_EQ(json::parse(lines[1]).at("id"), 1);
  EXPECT_EQ(json::parse(lines[1]).at("error").at("code"), "invalid_argument");
  EXPECT_EQ(json::parse(lines[2]).at("id"), "long");
  EXPECT_THAT(json::parse(lines[2]).at("error").at("message").get<std::string>(), HasSubstr("99999"));
  EXPECT_EQ(json::parse(lines[3]).at("token_ids").size(), 2U);
}

TEST_F(GenerateTest, AnswersWhenNoRequestCanRun) {
  const ProgramResult result = run({"--input", "-", "--keep-going"}, "nonsense\n");
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(json::parse(result.out).at("error").at("code"), "invalid_argument");
}

TEST_F(GenerateTest, RunsTheSyntheticBenchmark) {
  const ProgramResult result = run({"--prompt-len",
                                    "16",
                                    "--gen-len",
                                    "4",
                                    "--num-prompts",
                                    "6",
                                    "--percent",
                                    "20",
                                    "80",
                                    "0",
                                    "100",
                                    "0",
                                    "100",
                                    "--gpu-batch-size",
                                    "2",
                                    "--num-gpu-batches",
                                    "2",
                                    "--cpu-cache-compute",
                                    "--stats-out",
                                    dir_ / "stats.jsonl"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("num prompts: 6  prompt len: 16  gen len: 4"));
  EXPECT_THAT(result.out, HasSubstr("prefill throughput: "));
  EXPECT_THAT(result.out, HasSubstr("total throughput: "));
  const std::vector<std::string> stats = lines_of(read_text(dir_ / "stats.jsonl"));
  ASSERT_EQ(stats.size(), 2U);
  const json header = json::parse(stats[0]);
  EXPECT_EQ(header.at("kind"), "run");
  EXPECT_TRUE(header.contains("commit") && header.contains("device"));
  EXPECT_EQ(header.at("config").at("placement").at("percent").at(1), 80);
  const json summary = json::parse(stats[1]);
  EXPECT_EQ(summary.at("generated_tokens"), 24);
  EXPECT_EQ(summary.at("prompt_tokens"), 96);
}

// The three commands of a new user but the first, whose profile ships here: the plan's flags, the planner's
// choice and the same flags by hand are one placement, and the report has the bound and the prediction.
TEST_F(GenerateTest, AsksThePlannerWhereThereIsSomethingToChoose) {
  const std::vector<std::string> work = {"--model",       "random:opt-125m",
                                         "--prompt-len",  "8",
                                         "--gen-len",     "2",
                                         "--num-prompts", "4",
                                         "--hardware",    "laptop-8gb",
                                         "--gpu-memory",  "250MiB",
                                         "--cpu-memory",  "700MiB",
                                         "--disk-dir",    dir_ / ""};
  const ProgramResult result =
      run_program(std::vector<std::string>{"generate", "--stats-out", dir_ / "stats.jsonl"} + work);
  ASSERT_EQ(result.status, 0) << result.err;
  const std::string chosen = "planned with --hardware laptop-8gb in ";
  ASSERT_THAT(result.err, HasSubstr(chosen));
  const std::size_t at = result.err.find("--percent", result.err.find(chosen));
  std::istringstream flags(result.err.substr(at, result.err.find('\n', at) - at));
  std::vector<std::string> by_hand = work;
  for (std::string word; flags >> word;) by_hand.push_back(word);
  EXPECT_THAT(result.err, HasSubstr("laptop-8gb is a profile of another machine: its device is 'mobile GPU"));
  EXPECT_THAT(result.err, HasSubstr("bound      "));
  EXPECT_THAT(result.err, HasSubstr("predicted  measured difference"));
  const json summary = json::parse(lines_of(read_text(dir_ / "stats.jsonl")).at(1));
  EXPECT_EQ(summary.at("profile"), "--hardware laptop-8gb");
  EXPECT_GT(summary.at("bound").at("tokens_per_sec").get<double>(), 0);
  EXPECT_EQ(summary.at("predicted").at("num_passes"), summary.at("num_passes"));

  const ProgramResult repeated = run_program(std::vector<std::string>{"generate"} + by_hand);
  EXPECT_EQ(repeated.status, 0) << repeated.err;
  EXPECT_THAT(repeated.err, Not(HasSubstr("planned with"))) << "nothing is left to choose";
  const auto placement_of = [](const std::string& text) {
    const std::size_t line = text.find("  placement  ");
    return text.substr(line, text.find('\n', line) - line);
  };
  EXPECT_EQ(placement_of(repeated.err), placement_of(result.err));
}

// Small models start at once: nothing is measured, and no profile of another machine is in the way.
TEST_F(GenerateTest, MeasuresNothingWhereEverythingFits) {
  const ProgramResult result =
      run_program({"generate", "--model", *suite_dir / "store", "The old man", "--max-new-tokens", "5"});
  EXPECT_EQ(result.status, 0);
  EXPECT_THAT(result.err, Not(HasSubstr("measured for")));
  EXPECT_THAT(result.err, HasSubstr("placement  100 0 100 0 100 0, 1 x 1 sequences, CPU attention off"));
  EXPECT_THAT(result.err, HasSubstr("bound      not known, nor a prediction: `sluice profile`"));
}

TEST_F(GenerateTest, WritesATraceForPerfetto) {
  const ProgramResult result = run({"The old man", "--gen-len", "3", "--trace", dir_ / "trace.json"});
  EXPECT_EQ(result.status, 0) << result.err;
  const json trace = json::parse(read_text(dir_ / "trace.json"));
  EXPECT_FALSE((trace.is_array() ? trace : trace.at("traceEvents")).empty());
}

TEST_F(GenerateTest, CtrlCKeepsFinishedResultsAndResumeGivesTheOutputOfOneRun) {
  write_text(dir_ / "in.jsonl", many_requests(20, 90));
  std::filesystem::create_directory(dir_ / "disk");
  const auto args = [&](const std::string& output) {
    // KV on CPU and disk, so that there are files of the run to remove.
    return generate() + std::vector<std::string>{"--input", dir_ / "in.jsonl", "--output", dir_ / output} +
           std::vector<std::string>{"--disk-dir", dir_ / "disk",       "--gpu-batch-size",
                                    "2",          "--num-gpu-batches", "2"} +
           std::vector<std::string>{"--percent", "100", "0", "0", "75", "100", "0"};
  };
  EXPECT_EQ(run_program(args("whole")).status, 0);
  const std::string whole = read_text(dir_ / "whole");
  ASSERT_EQ(lines_of(whole).size(), 20U);

  for (int signal : {SIGINT, SIGTERM, SIGKILL}) {
    const std::string output = fmt::format("out{}", signal);
    const int status = interrupt(args(output), dir_ / output, signal);
    EXPECT_EQ(status, signal == SIGKILL ? 128 + SIGKILL : status_of(Code::kCancelled));
    const std::vector<std::string> kept = lines_of(read_text(dir_ / output));
    EXPECT_GE(kept.size(), 3U);
    EXPECT_LT(kept.size(), 20U);
    for (const std::string& line : kept) EXPECT_THAT(whole, HasSubstr(line + "\n"));
    if (signal != SIGKILL) {
      EXPECT_TRUE(std::filesystem::is_empty(dir_ / "disk")) << "files of the run are removed";
      EXPECT_FALSE(std::filesystem::exists(dir_ / (output + ".sluice.waiting")));
    }
    const ProgramResult fresh = run_program(args(output));
    EXPECT_EQ(fresh.status, status_of(Code::kInvalidArgument)) << "an unfinished run is not overwritten";
    const ProgramResult changed =
        run_program(args(output) + std::vector<std::string>{"--resume", "--kv-format", "fp32"});
    EXPECT_EQ(changed.status, status_of(Code::kInvalidArgument));
    EXPECT_THAT(changed.err, HasSubstr("kv_format was fp16 and is fp32"));
    const ProgramResult resumed = run_program(args(output) + std::vector<std::string>{"--resume"});
    EXPECT_EQ(resumed.status, 0) << resumed.err;
    EXPECT_EQ(read_text(dir_ / output), whole) << "after signal " << signal;
  }
  EXPECT_EQ(run_program(args("whole") + std::vector<std::string>{"--resume"}).status, 0)
      << "nothing is left to do";
  EXPECT_EQ(read_text(dir_ / "whole"), whole);
}

TEST_F(GenerateTest, SaysWhatItIs) {
  const ProgramResult result = run_program({"--version"});
  EXPECT_EQ(result.status, 0);
  EXPECT_THAT(result.out,
              MatchesRegex("sluice [0-9.]+\n  commit +[^\n]+\n  build +[^\n]+\n  devices +cpu: [^\n]+\n"
                           "  disk I/O +[^\n]+\n"));
}

TEST_F(GenerateTest, ExplainsEveryCommand) {
  for (const char* command : {"generate", "convert", "inspect", "bench", "profile", "plan"}) {
    const ProgramResult result = run_program({command, "--help"});
    EXPECT_EQ(result.status, 0) << command;
    EXPECT_THAT(result.out, HasSubstr("Usage: sluice")) << command;
    EXPECT_GT(lines_of(result.out).size(), 8U) << command;
  }
}

}  // namespace
}  // namespace sluice::apps
