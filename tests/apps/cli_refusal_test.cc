// What `sluice` refuses, through the program itself: exit statuses, and one line that says what to do.
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "core/build_config.h"
#include "kernels/device/device.h"
#include "tests/apps/cli_fixture.h"

namespace sluice::apps {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Refusal {
  std::vector<std::string> args;
  Code code;
  const char* message;
};

TEST_F(GenerateTest, RefusesWithAStatusOf1To127AndOneLineThatSaysWhatToDo) {
  const std::string store = *suite_dir / "store";
  write_text(dir_ / "bad.jsonl", "{\"prompt_ids\": [5]}\n{\"prompt_ids\": [5], \"top_p\": 3}\n");
  write_text(dir_ / "long.jsonl", json{{"prompt_ids", std::vector<int>(1025, 5)}}.dump());
  write_text(dir_ / "id.jsonl", "{\"prompt_ids\": [4096]}\n");
  write_text(dir_ / "empty.jsonl", "\n");
  write_text(dir_ / "config.yaml", "placement:\n  gpu_batch_sise: 3\n  mixing: maybe\n");
  const Refusal refusals[] = {
      {{"generate"}, Code::kInvalidArgument, "no model"},
      {{"generate", "--model", store}, Code::kInvalidArgument, "no prompts"},
      {{"generate", "--model", dir_ / "none", "x"}, Code::kNotFound, "none"},
      {{"generate", "--model", "random:opt-31b", "x"}, Code::kNotFound, "opt-13b"},
      {{"generate", "--model", "random:opt-125m:x", "x"}, Code::kInvalidArgument, "no seed"},
      {{"generate", "--model", "random:opt-125m", "text"}, Code::kUnsupported, "--tokenizer"},
      {{"generate", "--model", store, "x", "--no-such-flag"}, Code::kInvalidArgument, "--no-such-flag"},
      {{"generate", "--model", store, "x", "--compress-weight"}, Code::kInvalidArgument, "--compress-weight"},
      {{"generate", "--model", store, "x", "--percent", "60", "50", "0", "0", "0", "0"},
       Code::kInvalidArgument,
       "60"},
      {{"generate", "--model", store, "x", "--percent", "60", "40"}, Code::kInvalidArgument, "--percent"},
      {{"generate", "--model", store, "x", "--gpu-memory", "1MiB"}, Code::kOutOfMemory, "--gpu-memory"},
      {{"generate", "--model", store, "x", "--cpu-memory", "0", "--percent", "0", "100", "0", "100", "0",
        "100"},
       Code::kOutOfMemory,
       "--cpu-memory"},
      {{"generate", "--model", store, "x", "--gpu-memory", "lots"}, Code::kInvalidArgument, "--gpu-memory"},
      {{"generate", "--model", store, "x", "--gpu-memory", "1MiB", "--cpu-memory", "1MiB", "--disk-memory",
        "0"},
       Code::kOutOfMemory,
       "more is needed"},
      {{"generate", "--model", store, "x", "--hardware", "laptop-9gb"}, Code::kNotFound, "laptop-8gb"},
      {{"generate", "--model", store, "x", "--cpu-cache-compute", "--no-cpu-cache-compute"},
       Code::kInvalidArgument,
       "--no-cpu-cache-compute"},
      {{"generate", "--model", store, "x", "--cpu-cache-compute=false"},
       Code::kInvalidArgument,
       "cpu-cache-compute was given a disallowed flag override"},
      {{"generate", "--model", store, "x", "--gpu-memory", "9MiB", "--gpu-batch-size", "9",
        "--max-tokens-per-gpu-batch", "8"},
       Code::kInvalidArgument,
       "--max-tokens-per-gpu-batch 8 is below --gpu-batch-size 9"},
      {{"generate", "--model", store, "x", "--top-p", "2"}, Code::kInvalidArgument, "top_p"},
      {{"generate", "--model", store, "--input", dir_ / "bad.jsonl"},
       Code::kInvalidArgument,
       "bad.jsonl:2: top_p"},
      {{"generate", "--model", store, "--input", dir_ / "long.jsonl"}, Code::kInvalidArgument, "1025 tokens"},
      {{"generate", "--model", store, "--input", dir_ / "id.jsonl"}, Code::kInvalidArgument, "4096"},
      {{"generate", "--model", store, "--input", dir_ / "empty.jsonl"}, Code::kInvalidArgument, "no request"},
      {{"generate", "--model", store, "--input", dir_ / "none.jsonl"}, Code::kNotFound, "none.jsonl"},
      {{"generate", "--model", store, "x", "--output", dir_ / "none/out"}, Code::kNotFound, "none/out"},
      {{"generate", "--model", store, "x", "--output", "/dev/full"}, Code::kIo, "No space left"},
      {{"generate", "--model", store, "x", "--resume"}, Code::kInvalidArgument, "--output"},
      {{"generate", "--model", store, "x", "--run-config", dir_ / "config.yaml"},
       Code::kInvalidArgument,
       "config.yaml:2: placement.gpu_batch_sise"},
      {{"generate", "--model", store, "x", "--set", "generation.seed=x"},
       Code::kInvalidArgument,
       "generation.seed"},
      {{"nonsense"}, Code::kInvalidArgument, "see 'sluice --help'"},
      {{}, Code::kInvalidArgument, "subcommand"},
  };
  for (const Refusal& refusal : refusals) {
    std::string line;
    for (const std::string& arg : refusal.args) line += arg + " ";
    const ProgramResult result = run_program(refusal.args + std::vector<std::string>{"-q"});
    EXPECT_EQ(result.status, status_of(refusal.code)) << line << "\n" << result.err;
    EXPECT_THAT(result.err, StartsWith("error: ")) << line;
    EXPECT_THAT(result.err, HasSubstr(refusal.message)) << line;
    EXPECT_THAT(result.err, HasSubstr("; ")) << line << "says what to do";
    EXPECT_EQ(result.out, "") << line;
  }
}

// Whichever build and machine this is: a device that cannot be had is named with the reason and the remedy,
// before anything is loaded or written.
TEST_F(GenerateTest, RefusesADeviceThatCannotBeHad) {
  const bool has_one = kernels::cuda_device_present();
  // What is said of a CUDA device that is not there, and with which status.
  const Code none = kWithCuda ? Code::kDevice : Code::kUnsupported;
  const char* const no_device = kWithCuda ? "no CUDA device: " : "this build has no CUDA device";
  const std::vector<std::string> placements[] = {{}, {"--percent", "100", "0", "100", "0", "100", "0"}};
  for (const std::vector<std::string>& placement : placements) {
    const auto refused = [&](const std::string& device, Code code, const std::string& message) {
      const ProgramResult result =
          run(std::vector<std::string>{"x", "--output", dir_ / "out", "--device", device} + placement);
      EXPECT_EQ(result.status, status_of(code)) << device << "\n" << result.err;
      EXPECT_THAT(result.err, StartsWith("error: ")) << device;
      EXPECT_THAT(result.err, HasSubstr(message)) << device;
      EXPECT_EQ(lines_of(result.err).size(), 1U) << result.err;
      EXPECT_EQ(result.out, "") << device;
      EXPECT_EQ(read_text(dir_ / "out"), "") << device;
      return result.err;
    };
    for (const std::string device : {"gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda: 1", "CUDA",
                                     "cuda:99999999999", "cpu:0", ""}) {
      refused(device, Code::kInvalidArgument,
              fmt::format("--device is '{}'; give auto, cpu, cuda or cuda:N", device));
    }
    if (has_one) {
      refused("cuda:97", Code::kInvalidArgument, "there is no CUDA device 97; this machine has ");
    } else {
      for (const std::string device : {"cuda", "cuda:0", "cuda:7"})
        EXPECT_THAT(refused(device, none, no_device), HasSubstr("use --device cpu"));
    }
  }
  if (!has_one) {
    EXPECT_EQ(run({"x", "--max-new-tokens", "1", "--device", "auto"}).status, 0) << "auto takes the CPU";
    const ProgramResult bench = run_program({"bench", "device", "--device", "cuda"});
    EXPECT_EQ(bench.status, status_of(none));
    EXPECT_THAT(bench.err, HasSubstr(no_device));
  }
}

TEST_F(GenerateTest, ReportsEveryProblemOfAConfigurationAtOnce) {
  write_text(dir_ / "config.yaml", "placement:\n  gpu_batch_sise: 3\n  mixing: maybe\n");
  const ProgramResult result = run({"x", "--run-config", dir_ / "config.yaml", "--set", "memory.gpv=1"});
  EXPECT_THAT(result.err, HasSubstr("config.yaml:2: placement.gpu_batch_sise"));
  EXPECT_THAT(result.err, HasSubstr("config.yaml:3: placement.mixing"));
  EXPECT_THAT(result.err, HasSubstr("memory.gpv"));
}

}  // namespace
}  // namespace sluice::apps
