// Sweeps that run: the program starts itself for every point.
#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <thread>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "tests/apps/program.h"
#include "tests/apps/temp_dir.h"

namespace sluice::apps {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kRuns = R"(description: Quick runs.
flags: {model: "random:opt-125m", prompt-len: 8, gen-len: 2, num-prompts: 2, device: cpu}
axes:
  percent: [100 0 100 0 100 0, 0 100 0 100 0 100]
  block: [2x1, 1x2]
)";

// A machine without a GPU, as far as memory plans ask.
constexpr const char* kHere = "memory: {gpu_gib: 4, cpu_gib: 8, gpu_is_host: true}\n";

std::vector<json> lines_of(const std::string& path) {
  std::vector<json> lines;
  std::istringstream in(read_text(path));
  for (std::string line; std::getline(in, line);) {
    json parsed = json::parse(line, nullptr, false);
    if (!parsed.is_discarded()) lines.push_back(std::move(parsed));
  }
  return lines;
}

std::vector<std::string> sweep(const TempDir& dir, const std::vector<std::string>& more = {}) {
  std::vector<std::string> words = {"sweep", dir / "runs.yaml", "--output", dir / "out.jsonl"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

/// Waits until `done()`; false after half a minute.
bool eventually(const std::function<bool()>& done) {
  for (int i = 0; i < 3000; ++i) {
    if (done()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

TEST(SweepRuns, MeasureBesideThePrediction) {
  const TempDir dir;
  write_text(dir / "runs.yaml", kRuns);
  write_text(dir / "here.yaml", kHere);
  const ProgramResult result =
      run_program(sweep(dir, {"--hardware", dir / "here.yaml", "--report", dir / "out.html"}));
  ASSERT_EQ(result.status, 0) << result.err;
  const std::vector<json> lines = lines_of(dir / "out.jsonl");
  ASSERT_EQ(lines.size(), 5U);
  EXPECT_EQ(lines[0]["mode"], "run");
  for (std::size_t i = 1; i < lines.size(); ++i) {
    const json& line = lines[i];
    EXPECT_EQ(line["status"], "ok");
    const double measured = line["measured"]["tokens_per_sec"].get<double>();
    EXPECT_GT(measured, 0);
    EXPECT_EQ(line["measured"]["generated_tokens"], 4);
    EXPECT_GT(line["took_sec"].get<double>(), line["measured"]["total_sec"].get<double>());
    EXPECT_NEAR(line["error_percent"].get<double>(),
                100 * (line["predicted"]["tokens_per_sec"].get<double>() / measured - 1), 1e-6);
    EXPECT_GT(line["measured"]["memory_bytes"]["gpu"].get<std::int64_t>(), 0);
    EXPECT_EQ(line["measured"]["memory_bytes"]["gpu"], line["predicted"]["memory_bytes"]["gpu"])
        << "the plan's bytes are those that are reserved";
  }
  EXPECT_THAT(read_text(dir / "out.html"), HasSubstr("\"measured\""));
}

TEST(SweepRuns, APlannedPointRunsThePlan) {
  const TempDir dir;
  write_text(dir / "runs.yaml", R"(description: x
flags: {model: "random:opt-125m", prompt-len: 8, gen-len: 2, device: cpu, gpu-memory: 300MiB,
        cpu-memory: 1GiB, block: 3x1}
)");
  write_text(dir / "here.yaml", kHere);
  const ProgramResult result = run_program(sweep(dir, {"--hardware", dir / "here.yaml"}));
  ASSERT_EQ(result.status, 0) << result.err;
  const json line = lines_of(dir / "out.jsonl").at(1);
  EXPECT_EQ(line["requests"], 3) << "a block is filled";
  EXPECT_EQ(line["placement"]["gpu_batch_size"], 3);
  EXPECT_THAT(line["placement_flags"].get<std::string>(),
              HasSubstr(line["placement"]["percent"].get<std::string>()));
}

TEST(SweepRuns, RefusedAndFailedPointsDoNotEndIt) {
  const TempDir dir;
  write_text(dir / "runs.yaml", R"(description: x
flags: {model: "random:opt-125m", prompt-len: 8, gen-len: 2, num-prompts: 2, device: cpu,
        percent: 100 0 100 0 100 0}
points:
  - {label: small, gpu-memory: 1MiB}
  - {label: missing, model: nothing}
  - {label: contradicts, percent: 90 90 0 100 0 100}
  - {label: fits}
)");
  const ProgramResult result = run_program(sweep(dir));
  EXPECT_EQ(result.status, exit_status(Code::kInternal)) << result.err;
  EXPECT_THAT(result.err, HasSubstr("1 of 4 points failed, the first: "));
  const std::vector<json> lines = lines_of(dir / "out.jsonl");
  ASSERT_EQ(lines.size(), 5U);
  EXPECT_EQ(lines[1]["status"], "refused");
  EXPECT_EQ(lines[1]["code"], "out_of_memory");
  EXPECT_EQ(lines[2]["status"], "failed");
  EXPECT_EQ(lines[2]["code"], "not_found");
  EXPECT_THAT(lines[2]["message"].get<std::string>(), HasSubstr("nothing"));
  EXPECT_EQ(lines[3]["status"], "refused");
  EXPECT_EQ(lines[4]["status"], "ok");
}

constexpr const char* kEndless = R"(description: x
flags: {model: "random:opt-125m", prompt-len: 8, device: cpu, percent: 100 0 100 0 100 0, ignore-eos: true}
points:
  - {label: short, gen-len: 2, num-prompts: 2}
  - {label: long, gen-len: 1500, num-prompts: 64}
)";

TEST(SweepRuns, ATimeoutIsAFailureOfThePoint) {
  const TempDir dir;
  write_text(dir / "runs.yaml", std::string(kEndless) + "timeout_sec: 3\n");
  const ProgramResult result = run_program(sweep(dir));
  EXPECT_EQ(result.status, exit_status(Code::kInternal)) << result.err;
  const std::vector<json> lines = lines_of(dir / "out.jsonl");
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[2]["status"], "failed");
  EXPECT_THAT(lines[2]["message"].get<std::string>(), HasSubstr("more than the 3 s of timeout_sec"));
}

// Rates in GB/s that this machine has never, and always.
constexpr double kTooHigh = 1e6;
constexpr double kTooLow = 1e-3;

/// The profile of this machine as if its CPUs attended at `gb_per_sec`.
std::string attending_at(double gb_per_sec) {
  return fmt::format("{}cpu: {{attention: [{{threads: 2, gb_per_sec: {}}}]}}\n", kHere, gb_per_sec);
}

/// The same, as if its disk, a small one, were read at `gb_per_sec`. The CPUs are fast enough.
std::string reading_at(double gb_per_sec, double disk_gib = 1) {
  return fmt::format(
      "memory: {{gpu_gib: 4, cpu_gib: 8, disk_gib: {}, gpu_is_host: true}}\n"
      "cpu: {{attention: [{{threads: 2, gb_per_sec: {}}}]}}\n"
      "disk: {{read: [{{queue_depth: 64, piece_kib: 1024, gb_per_sec: {}}}]}}\n",
      disk_gib, kTooLow, gb_per_sec);
}

/// A point that reads weights from `folder`; more points may follow.
std::string with_disk(const std::string& folder) {
  return fmt::format(R"(description: x
flags: {{model: "random:opt-125m", prompt-len: 8, gen-len: 2, num-prompts: 2, device: cpu, disk-dir: "{}"}}
steady_share: 0.5
points:
  - {{label: disk, percent: 50 0 100 0 100 0}}
)",
                     folder);
}

/// Cuts the file behind its first `count` lines. Returns what is left.
std::string keep_lines(const std::string& path, int count) {
  std::istringstream all(read_text(path));
  std::string kept;
  std::string line;
  for (int i = 0; i < count && std::getline(all, line); ++i) kept += line + "\n";
  write_text(path, kept);
  return kept;
}

constexpr const char* kSteady = R"(description: x
flags: {model: "random:opt-125m", prompt-len: 8, gen-len: 2, num-prompts: 2, device: cpu,
        percent: 100 0 100 0 100 0}
points:
  - {label: first}
  - {label: second, block: 1x2}
steady_share: 0.5
)";

TEST(SweepRuns, ADisturbedPointRunsAgainAtTheEndAndAtMostTwice) {
  const TempDir dir;
  write_text(dir / "runs.yaml", kSteady);
  write_text(dir / "here.yaml", attending_at(kTooHigh));
  const ProgramResult result = run_program(sweep(dir, {"--hardware", dir / "here.yaml"}));
  ASSERT_EQ(result.status, 0) << result.err;
  const std::vector<json> lines = lines_of(dir / "out.jsonl");
  ASSERT_EQ(lines.size(), 1U + 2 * 3);
  for (std::size_t i = 1; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i]["attempt"], 1 + (i - 1) / 2);
    EXPECT_EQ(lines[i]["number"], (i - 1) % 2) << "the others first";
    EXPECT_EQ(lines[i]["disturbed"], true);
    EXPECT_GT(lines[i]["host_share"].get<double>(), 0);
    EXPECT_LT(lines[i]["host_share"].get<double>(), 0.5);
  }
  EXPECT_THAT(result.err, AllOf(HasSubstr("of the profile's rate: again at the end"),
                                HasSubstr("2 points: 2 ok, 0 refused, 0 failed")));
}

TEST(SweepRuns, AnUndisturbedPointRunsOnce) {
  const TempDir dir;
  write_text(dir / "runs.yaml", kSteady);
  write_text(dir / "here.yaml", attending_at(kTooLow));
  const ProgramResult result = run_program(sweep(dir, {"--hardware", dir / "here.yaml"}));
  ASSERT_EQ(result.status, 0) << result.err;
  const std::vector<json> lines = lines_of(dir / "out.jsonl");
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_GT(lines[1]["host_share"].get<double>(), 1);
  EXPECT_FALSE(lines[1].contains("disturbed"));
}

TEST(SweepRuns, APointWhoseDiskIsSlowRunsAgain) {
  const TempDir dir;
  const TempDir disk;
  write_text(dir / "runs.yaml",
             with_disk(disk.path().string()) + "  - {label: none, percent: 100 0 100 0 100 0}\n");
  write_text(dir / "here.yaml", reading_at(kTooHigh));
  const ProgramResult result = run_program(sweep(dir, {"--hardware", dir / "here.yaml"}));
  ASSERT_EQ(result.status, 0) << result.err;
  const std::vector<json> lines = lines_of(dir / "out.jsonl");
  ASSERT_EQ(lines.size(), 1U + 3 + 1);
  for (const std::size_t i : {1, 3, 4}) {
    EXPECT_EQ(lines[i]["label"], "disk");
    EXPECT_EQ(lines[i]["disturbed"], true);
    EXPECT_GT(lines[i]["disk_share"].get<double>(), 0);
    EXPECT_LT(lines[i]["disk_share"].get<double>(), 0.5);
    EXPECT_GT(lines[i]["host_share"].get<double>(), 1);
  }
  EXPECT_EQ(lines[4]["attempt"], 3);
  EXPECT_EQ(lines[2]["label"], "none");
  EXPECT_EQ(lines[2]["disk_share"], 1) << "the disk of a point that reads none is not timed";
  EXPECT_FALSE(lines[2].contains("disturbed"));
  EXPECT_THAT(result.err, HasSubstr("the disk at 0 % of the profile's rate: again at the end"));
  EXPECT_TRUE(std::filesystem::is_empty(disk.path())) << "the file that was read is removed";
}

TEST(SweepRuns, APointWhoseDiskIsFastEnoughRunsOnce) {
  const TempDir dir;
  const TempDir disk;
  write_text(dir / "runs.yaml", with_disk(disk.path().string()));
  write_text(dir / "here.yaml", reading_at(kTooLow));
  const ProgramResult result = run_program(sweep(dir, {"--hardware", dir / "here.yaml"}));
  ASSERT_EQ(result.status, 0) << result.err;
  const std::vector<json> lines = lines_of(dir / "out.jsonl");
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_GT(lines[1]["disk_share"].get<double>(), 1);
  EXPECT_FALSE(lines[1].contains("disturbed"));
}

TEST(SweepRuns, ADiskThatTheProfileHasNotIsNotTimed) {
  const TempDir dir;
  const TempDir disk;
  // No prediction knows pieces of another size, so that the point is run without one.
  write_text(dir / "runs.yaml", with_disk(disk.path().string()));
  write_text(dir / "here.yaml", reading_at(kTooHigh, /*disk_gib=*/0));
  const ProgramResult result =
      run_program(sweep(dir, {"--hardware", dir / "here.yaml", "--set", "piece-size=1MiB"}));
  ASSERT_EQ(result.status, 0) << result.err;
  const std::vector<json> lines = lines_of(dir / "out.jsonl");
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[1]["disk_share"], 1);
  EXPECT_FALSE(lines[1].contains("disturbed"));
}

TEST(SweepRuns, ResumingCountsTheAttemptsOfTheRunBefore) {
  const TempDir dir;
  write_text(dir / "runs.yaml", kSteady);
  write_text(dir / "here.yaml", attending_at(kTooHigh));
  const std::vector<std::string> words = {"--hardware", dir / "here.yaml"};
  ASSERT_EQ(run_program(sweep(dir, words)).status, 0);
  // As if the run had been killed within the second round.
  keep_lines(dir / "out.jsonl", 4);
  const ProgramResult resumed = run_program(sweep(dir, {"--hardware", dir / "here.yaml", "--resume"}));
  ASSERT_EQ(resumed.status, 0) << resumed.err;
  const std::vector<json> lines = lines_of(dir / "out.jsonl");
  ASSERT_EQ(lines.size(), 7U);
  EXPECT_EQ(lines[4]["number"], 0);
  EXPECT_EQ(lines[4]["attempt"], 3) << "its second one was there";
  EXPECT_EQ(lines[5]["number"], 1);
  EXPECT_EQ(lines[5]["attempt"], 2);
  EXPECT_EQ(lines[6]["attempt"], 3);
}

TEST(SweepRuns, AProbeThatFailsIsNoFailureOfThePoint) {
  const TempDir dir;
  write_text(dir / "runs.yaml", kSteady);
  write_text(dir / "here.yaml",
             std::string(kHere) + "cpu: {attention: [{threads: 5000, gb_per_sec: 10}]}\n");  // too many
  const ProgramResult result = run_program(sweep(dir, {"--hardware", dir / "here.yaml"}));
  ASSERT_EQ(result.status, 0) << result.err;
  const std::vector<json> lines = lines_of(dir / "out.jsonl");
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[1]["status"], "ok");
  EXPECT_FALSE(lines[1].contains("host_share"));
  EXPECT_THAT(result.err, HasSubstr("not timed whether the machine is as fast as profiled"));
}

TEST(SweepRuns, APointThatShallRunAgainIsNotFinished) {
  const TempDir dir;
  write_text(dir / "runs.yaml", kSteady);
  write_text(dir / "here.yaml", attending_at(1e6));
  ASSERT_EQ(run_program(sweep(dir, {"--hardware", dir / "here.yaml"})).status, 0);
  // As if the run had been stopped after the first round.
  const std::string kept = keep_lines(dir / "out.jsonl", 3);
  const ProgramResult again = run_program(sweep(dir, {"--hardware", dir / "here.yaml"}));
  EXPECT_NE(again.status, 0);
  EXPECT_THAT(again.err, HasSubstr("holds 0 of 2 points of an unfinished sweep"));
  EXPECT_EQ(read_text(dir / "out.jsonl"), kept);
}

TEST(SweepRuns, AfterAKillItResumesAndNoRunIsLeftBehind) {
  const TempDir dir;
  write_text(dir / "runs.yaml", kEndless);
  RunningProgram killed(sweep(dir));
  ASSERT_TRUE(eventually([&] { return lines_of(dir / "out.jsonl").size() == 2; }))
      << "the first point is done";
  killed.signal(SIGKILL);
  EXPECT_EQ(killed.wait(), 128 + SIGKILL);
  EXPECT_EQ(lines_of(dir / "out.jsonl").size(), 2U);
  // The same sweep, but the long point is ended by its limit: the short one is not run again.
  write_text(dir / "runs.yaml", std::string(kEndless) + "timeout_sec: 1\n");
  const ProgramResult resumed = run_program(sweep(dir, {"--resume"}));
  EXPECT_THAT(resumed.err, HasSubstr("1 of 2 points are done"));
  EXPECT_EQ(lines_of(dir / "out.jsonl").size(), 3U);
}

TEST(SweepRuns, CtrlCPassesOnAndTheFileCanBeResumed) {
  const TempDir dir;
  write_text(dir / "runs.yaml", kEndless);
  RunningProgram interrupted(sweep(dir, {"--report", dir / "out.html"}), dir / "messages");
  ASSERT_TRUE(eventually([&] { return lines_of(dir / "out.jsonl").size() == 2; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  interrupted.signal(SIGINT);
  EXPECT_EQ(interrupted.wait(), exit_status(Code::kCancelled));
  EXPECT_EQ(lines_of(dir / "out.jsonl").size(), 2U) << "the interrupted point has no line";
  EXPECT_THAT(read_text(dir / "messages"),
              AllOf(HasSubstr("stopped after 1 of 2 points"), HasSubstr("--resume")));
  EXPECT_THAT(read_text(dir / "out.html"), HasSubstr("\"number\":0"));
}

}  // namespace
}  // namespace sluice::apps
