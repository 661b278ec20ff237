// `sluice plan` and `sluice profile` through the command line.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "apps/plan/explain.h"
#include "core/build_config.h"
#include "core/error.h"
#include "policy/hardware.h"
#include "tests/apps/run_command.h"
#include "tests/apps/temp_dir.h"
#include "tests/support/scoped_env.h"

namespace sluice::apps {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::string> plan(const std::vector<std::string>& more = {}) {
  std::vector<std::string> words = {
      "plan",         "--model", "random:opt-1.3b", "--hardware", "laptop-8gb",
      "--prompt-len", "64",      "--gen-len",       "8",          "--no-marginal"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

std::string text_of(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

TEST(Plan, SaysTheFlagsThePredictionAndTheWall) {
  const Outcome outcome = run(plan({"--num-requests", "8"}));
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("--percent 100 0 100 0 100 0"));
  EXPECT_THAT(outcome.out, HasSubstr("predicted"));
  EXPECT_THAT(outcome.out, HasSubstr("wall       gpu"));
  EXPECT_THAT(outcome.out, HasSubstr("disk       not used"));
}

/// A plan with its prediction, made up.
policy::PlanCandidate made_up(int weights_on_disk, std::int64_t generated_tokens) {
  policy::PlanCandidate plan;
  plan.placement.percents.weights = {{20, 80 - weights_on_disk, weights_on_disk}};
  plan.simulation.total_sec = 10;
  plan.simulation.generated_tokens = generated_tokens;
  plan.simulation.passes.resize(4);
  plan.simulation.lanes[lane_index(policy::LaneKind::kGpu)].busy_sec = 9;
  plan.simulation.lanes[lane_index(policy::LaneKind::kDiskRead)].bytes = weights_on_disk * 1'000'000;
  return plan;
}

TEST(Plan, SaysWhyTheDiskIsOrIsNotUsed) {
  struct Case {
    policy::PlanCandidate best;
    std::optional<policy::PlanCandidate> other;
    std::string said;
  };
  const std::vector<Case> cases = {
      {made_up(30, 500), std::nullopt, "30 % of the weights and 0 % of the KV cache: memory does not hold"},
      {made_up(5, 550), made_up(0, 500),
       "0 % of the KV cache: 10.0 % faster than the best without it, --percent 20 80"},
      {made_up(0, 1000), made_up(1, 1012),
       "not used: 1 % of the weights and 0 % of the KV cache there would bring 1.2 %, "
       "and below 1.5 % its rate is not certain enough"},
      {made_up(0, 500), std::nullopt,
       "not used: a GiB of weights there takes 0.54 s of every pass at 2.00 GB/s; a pass takes 2.50 s"},
  };
  policy::PlanProblem problem;
  problem.hardware.disk.read = {{8, 4096, 3, 0}, {64, 1024, 2, 0}};
  for (const Case& each : cases) {
    ExplainedPlan plan;
    plan.problem = &problem;
    plan.result.best = each.best;
    plan.result.other_disk_use = each.other;
    EXPECT_THAT(plan_text(plan), HasSubstr(each.said));
    const json parsed = json::parse(plan_json(plan).dump());
    EXPECT_EQ(parsed["other_disk_use"].is_null(), !each.other);
    if (each.other) {
      EXPECT_EQ(parsed["other_disk_use"]["tokens_per_sec"], each.other->tokens_per_sec());
    }
  }
}

TEST(Plan, AsJsonItIsForPrograms) {
  const Outcome outcome = run(plan({"--gpu-memory", "1GiB", "--json"}));
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const json parsed = json::parse(outcome.out);
  EXPECT_EQ(parsed["kind"], "plan");
  EXPECT_GT(parsed["tokens_per_sec"].get<double>(), 0);
  EXPECT_EQ(parsed["requests"].get<std::int64_t>(),
            parsed["placement"]["gpu_batch_size"].get<std::int64_t>() *
                parsed["placement"]["num_gpu_batches"].get<std::int64_t>())
      << "without a count the block is full";
  for (const char* tier : {"gpu", "cpu", "disk"}) {
    EXPECT_LE(parsed["memory"][tier]["planned_bytes"].get<std::int64_t>(),
              parsed["memory"][tier]["budget_bytes"].get<std::int64_t>());
  }
  EXPECT_LT(parsed["placement"]["weights_percent"][0].get<int>(), 100);
}

TEST(Plan, ItsFlagsAreThoseOfGenerate) {
  const TempDir dir;
  const Outcome planned =
      run({"plan", "--model", "random:opt-125m", "--hardware", "laptop-8gb", "--prompt-len", "8", "--gen-len",
           "2", "--num-requests", "4", "--gpu-memory", "364MiB", "--json", "--no-marginal"});
  ASSERT_EQ(planned.status, 0) << planned.err;
  std::vector<std::string> words = {
      "generate", "--print-config", "--model", "random:opt-125m", "--prompt-len", "8", "--gen-len", "2"};
  std::istringstream flags(json::parse(planned.out)["flags"].get<std::string>());
  for (std::string word; flags >> word;) words.push_back(word);
  const Outcome generated = run(words);
  EXPECT_EQ(generated.status, 0) << generated.err;
  EXPECT_THAT(generated.out, HasSubstr("gpu_batch_size"));
}

TEST(Plan, CountsWithTheSwitchOfPrefetch) {
  const auto planned = [](const std::vector<std::string>& more) {
    std::vector<std::string> words = {
        "--gpu-memory", "1GiB", "--num-requests",   "4", "--percent",         "0", "100",   "100", "0",
        "100",          "0",    "--gpu-batch-size", "4", "--num-gpu-batches", "1", "--json"};
    words.insert(words.end(), more.begin(), more.end());
    const Outcome outcome = run(plan(words));
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return json::parse(outcome.out);
  };
  const json with = planned({});
  const json without = planned({"--no-prefetch"});
  EXPECT_EQ(with["placement"]["prefetch"], true);
  EXPECT_EQ(without["placement"]["prefetch"], false);
  EXPECT_THAT(with["flags"].get<std::string>(), Not(HasSubstr("--no-prefetch")));
  EXPECT_THAT(without["flags"].get<std::string>(), HasSubstr("--no-prefetch"));
  EXPECT_LT(without["tokens_per_sec"].get<double>(), with["tokens_per_sec"].get<double>());
}

TEST(Plan, WritesThePredictedTimeline) {
  const TempDir dir;
  const Outcome outcome = run(plan({"--num-requests", "2", "--trace", dir / "trace.json"}));
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const json trace = json::parse(text_of(dir / "trace.json"));
  ASSERT_GT(trace.size(), 100U);
  int posts = 0;
  for (const json& event : trace) posts += event["name"] == "post" ? 1 : 0;
  EXPECT_EQ(posts, 24 * 8) << "24 layers, 8 passes";
}

TEST(Plan, MarginalValuesAndStatedFlags) {
  const Outcome outcome = run({"plan",
                               "--model",
                               "random:opt-1.3b",
                               "--hardware",
                               "laptop-8gb",
                               "--prompt-len",
                               "64",
                               "--gen-len",
                               "8",
                               "--num-requests",
                               "8",
                               "--gpu-memory",
                               "2GiB",
                               "--percent",
                               "0",
                               "100",
                               "0",
                               "100",
                               "100",
                               "0",
                               "--no-cpu-cache-compute"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("one more GiB of GPU memory"));
  EXPECT_THAT(outcome.out, HasSubstr("your flags leave"));
  EXPECT_THAT(outcome.out, HasSubstr("your flags cost"));
}

TEST(Plan, TakesTheFormatThatIsFastestAmongThoseAllowed) {
  const Outcome outcome = run(plan(
      {"--gpu-memory", "700MiB", "--num-requests", "16", "--allow-formats", "dense,int4_g64", "--json"}));
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(json::parse(outcome.out)["format"], "int4_g64");
}

struct Refused {
  std::vector<std::string> words;
  Code code;
  std::string message;
};

TEST(Plan, RefusesWhatCannotBe) {
  const TempDir dir;
  std::ofstream(dir / "empty.jsonl") << "\n";
  std::ofstream(dir / "bad.yaml") << "memory: {gpu_gib: 0}\nlnk: {}\n";
  const std::vector<Refused> cases = {
      {plan({"--gpu-memory", "1MiB", "--cpu-memory", "1MiB"}), Code::kOutOfMemory, "more is needed"},
      {{"plan", "--model", "random:opt-1.3b", "--hardware", "laptop-8gb", "--gen-len", "4000"},
       Code::kInvalidArgument,
       "context"},
      {plan({"--input", dir / "empty.jsonl"}), Code::kInvalidArgument, "contradict"},
      {plan({"--percent", "60", "60", "0", "100", "0", "100"}), Code::kInvalidArgument, "100"},
      {plan({"--cpu-cache-compute", "--no-cpu-cache-compute"}), Code::kInvalidArgument, "contradict"},
      {plan({"--allow-formats", "int5"}), Code::kInvalidArgument, "int"},
      {plan({"--format", "dense", "--allow-formats", "dense"}), Code::kInvalidArgument, "contradict"},
      {{"plan", "--model", "random:opt-1.4b", "--hardware", "laptop-8gb"}, Code::kNotFound, "opt-1.3b"},
      {{"plan", "--model", dir / "nothing", "--hardware", "laptop-8gb"}, Code::kNotFound, "does not exist"},
      {{"plan", "--model", "random:opt-1.3b", "--hardware", "laptop-9gb"}, Code::kNotFound, "laptop-8gb"},
      {{"plan", "--model", "random:opt-1.3b", "--hardware", dir / "bad.yaml"},
       Code::kInvalidArgument,
       "bad.yaml:2"},
      {{"plan", "--model", "random:opt-1.3b", "--hardware", "laptop-8gb", "--input", dir / "empty.jsonl"},
       Code::kInvalidArgument,
       "no request"},
      {{"plan", "--hardware", "laptop-8gb"}, Code::kInvalidArgument, "--model"},
      {plan({"--gpu-batch-size", "8", "--max-tokens-per-gpu-batch", "4"}), Code::kInvalidArgument,
       "--max-tokens-per-gpu-batch 4 is below --gpu-batch-size 8"},
      {plan({"--max-latency", "0.001"}), Code::kInvalidArgument,
       "--max-latency 0.001 cannot be kept: the smallest latency"},
  };
  for (const Refused& refused : cases) {
    const Outcome outcome = run(refused.words);
    EXPECT_EQ(outcome.status, exit_status(refused.code)) << refused.message << ": " << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(refused.message));
    EXPECT_EQ(outcome.out, "");
  }
}

TEST(Plan, NamesDefaultsOfAProfileAndWarnsOfAnotherMachine) {
  const TempDir dir;
  std::ofstream(dir / "half.yaml") << "machine: {device: \"some GPU\"}\nmemory: {gpu_gib: 8, cpu_gib: 20}\n";
  const Outcome outcome =
      run({"plan", "--model", "random:opt-125m", "--hardware", dir / "half.yaml", "--prompt-len", "8",
           "--gen-len", "2", "--num-requests", "2", "--no-marginal"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("link.h2d is missing"));
  EXPECT_THAT(outcome.err, HasSubstr("another machine"));
  EXPECT_THAT(outcome.err, HasSubstr("some GPU"));
}

TEST(Plan, TheSmallestLatencyThatItNamesCanBeKept) {
  const Outcome refused = run(plan({"--max-latency", "0.001", "--num-requests", "8"}));
  const std::string allow = "allow --max-latency ";
  const std::size_t at = refused.err.find(allow);
  ASSERT_NE(at, std::string::npos) << refused.err;
  const std::string named = std::to_string(std::stod(refused.err.substr(at + allow.size())));
  const Outcome kept = run(plan({"--max-latency", named, "--num-requests", "8"}));
  EXPECT_EQ(kept.status, 0) << kept.err;
  EXPECT_THAT(kept.out, HasSubstr("latency "));
  EXPECT_THAT(kept.out, HasSubstr("from a request's start to its end"));
}

TEST(Plan, StatedThreadsArePlannedWithAndPrinted) {
  std::vector<std::string> words = plan({"--gpu-memory", "1GiB", "--num-requests", "16", "--percent", "0",
                                         "100", "0", "100", "100", "0", "--cpu-cache-compute", "--json"});
  const Outcome all = run(words);
  ASSERT_EQ(all.status, 0) << all.err;
  words.insert(words.end(), {"--threads", "4"});
  const Outcome four = run(words);
  ASSERT_EQ(four.status, 0) << four.err;
  const json parsed = json::parse(four.out);
  EXPECT_EQ(parsed["attention_threads"], 4);
  EXPECT_THAT(parsed["flags"].get<std::string>(), HasSubstr("--threads 4"));
  EXPECT_THAT(json::parse(all.out)["flags"].get<std::string>(), Not(HasSubstr("--threads 4")));
  words.erase(std::find(words.begin(), words.end(), "--json"));
  EXPECT_THAT(run(words).out, HasSubstr("threads    4 attend on the CPU, of 8"));
}

TEST(Plan, CountsTheRequestsOfAnInput) {
  const TempDir dir;
  std::ofstream(dir / "in.jsonl") << R"({"prompt_ids": [2, 5, 6], "max_new_tokens": 4})"
                                  << "\n"
                                  << R"({"prompt_ids": [2, 5, 6, 7, 8], "max_new_tokens": 6})"
                                  << "\n";
  const Outcome outcome = run({"plan", "--model", "random:opt-125m", "--hardware", "laptop-8gb", "--input",
                               dir / "in.jsonl", "--json", "--no-marginal"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const json parsed = json::parse(outcome.out);
  EXPECT_EQ(parsed["requests"], 2);
  EXPECT_EQ(parsed["prompt_tokens"], 8);
  EXPECT_EQ(parsed["generated_tokens"], 10);
}

TEST(Profile, MeasuresTheCpuDeviceAndWritesWhatPlanReads) {
  if (kBuildType == "Debug" || !kSanitize.empty())
    GTEST_SKIP() << "a debug or sanitizer build measures nothing";
  const TempDir dir;
  const sluice::testing::ScopedEnv config("XDG_CONFIG_HOME", std::string(dir / ""));
  const Outcome profiled = run({"profile", "--device", "cpu", "--rounds", "1", "--memory", "64MiB",
                                "--disk-size", "64MiB", "--name", "here"});
  ASSERT_EQ(profiled.status, 0) << profiled.err;
  EXPECT_THAT(profiled.err, HasSubstr("wrote " + (dir / "sluice/hardware.yaml")));
  EXPECT_EQ(profiled.out, "");
  const policy::ReadProfile read =
      policy::parse_hardware(text_of(dir / "sluice/hardware.yaml"), "hardware.yaml");
  EXPECT_EQ(read.profile.machine.name, "here");
  EXPECT_TRUE(read.defaulted.empty()) << read.defaulted.front().key;
  EXPECT_TRUE(read.profile.memory.gpu_is_host);
  EXPECT_GT(read.profile.link.h2d.size(), 3U);
  EXPECT_FALSE(read.profile.beside.empty());
  for (const auto* rows : {&read.profile.disk.read, &read.profile.disk.write}) {
    const bool as_engine = std::any_of(rows->begin(), rows->end(), [](const policy::DiskRate& row) {
      return row.queue_depth == policy::kDiskQueueDepth && row.piece_kib == policy::kDiskPieceKib;
    });
    EXPECT_TRUE(as_engine) << "no row for the engine's transfers, which the simulation takes";
  }
  const Outcome planned =
      run({"plan", "--model", "random:opt-125m", "--device", "cpu", "--prompt-len", "8", "--gen-len", "2",
           "--num-requests", "2", "--gpu-memory", "600MiB", "--cpu-memory", "600MiB", "--no-marginal"});
  EXPECT_EQ(planned.status, 0) << planned.err;
  EXPECT_THAT(planned.err, HasSubstr("counting with " + (dir / "sluice/hardware.yaml")));
  EXPECT_THAT(planned.err, Not(HasSubstr("another machine")));
  EXPECT_THAT(planned.out, HasSubstr("plan for random:opt-125m on here"));
}

TEST(Profile, FindsThatItCannotWriteBeforeItMeasures) {
  if (kBuildType == "Debug" || !kSanitize.empty())
    GTEST_SKIP() << "a debug or sanitizer build measures nothing";
  const TempDir dir;
  std::ofstream(dir / "file") << "no folder\n";
  const sluice::testing::ScopedEnv config("XDG_CONFIG_HOME", std::string(dir / "file"));
  for (const std::string& output : {dir / "missing/here.yaml", std::string(dir / ""), std::string()}) {
    std::vector<std::string> words = {"profile", "--device", "cpu", "--rounds", "1"};
    if (!output.empty()) words.insert(words.end(), {"--output", output});
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.status, exit_status(Code::kIo)) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr("cannot write '" + (output.empty() ? dir / "file/sluice" : output)));
    EXPECT_THAT(outcome.err, Not(HasSubstr("measuring")));
  }
}

}  // namespace
}  // namespace sluice::apps
