#include "apps/generate/flags.h"

#include <CLI/App.hpp>
#include <gmock/gmock.h>

#include "core/error.h"

namespace sluice::apps {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FlagsTest : public ::testing::Test {
 protected:
  /// Parses "generate" flags as the program does; "--model m" is added.
  GenerateConfig parse(std::vector<std::string> args) {
    flags_ = {};
    CLI::App app;
    add_generate_flags(app, flags_);
    args.insert(args.end(), {"--model", "m"});
    std::reverse(args.begin(), args.end());  // CLI11 takes them from the back
    app.parse(args);
    return resolve_config(flags_);
  }
  std::string refusal(const std::vector<std::string>& args) {
    try {
      parse(args);
    } catch (const Error& e) {
      return e.what();
    } catch (const CLI::ParseError& e) {
      return e.what();
    }
    return "accepted";
  }
  GenerateFlags flags_;
};

TEST_F(FlagsTest, StartsFromTheDocumentedDefaults) {
  const GenerateConfig c = parse({"hello"});
  EXPECT_THAT(flags_.prompts, ElementsAre("hello"));
  EXPECT_EQ(c.generation.max_new_tokens, 32);
  EXPECT_EQ(c.placement.kv_format, KvFormat::kF16);
  EXPECT_EQ(c.placement.prefetch_depth, 0) << "chosen";
  EXPECT_EQ(c.placement.max_tokens_per_gpu_batch, 0) << "chosen";
  EXPECT_TRUE(c.placement.mixing);
  EXPECT_TRUE(c.placement.prefetch);
  EXPECT_TRUE(c.model.add_bos);
  EXPECT_EQ(c.placement.cpu_cache_compute, std::nullopt) << "chosen";
  EXPECT_TRUE(c.placement.percent.empty());
}

TEST_F(FlagsTest, ReadsEverySetting) {
  struct Case {
    std::vector<std::string> args;
    std::function<bool(const GenerateConfig&)> holds;
  };
  const Case cases[] = {
      {{"--store", "s"}, [](const auto& c) { return c.model.store == "s"; }},
      {{"--config", "s"}, [](const auto& c) { return c.model.config == "s"; }},
      {{"--tokenizer", "s"}, [](const auto& c) { return c.model.tokenizer == "s"; }},
      {{"--format", "bitmap"}, [](const auto& c) { return c.model.format == "bitmap"; }},
      {{"--sparsity", "0.8"}, [](const auto& c) { return c.model.sparsity == 0.8; }},
      {{"--compress-weight"}, [](const auto& c) { return c.model.compress_weight; }},
      {{"--no-bos"}, [](const auto& c) { return !c.model.add_bos; }},
      {{"--percent", "20", "80", "0", "100", "0", "100"},
       [](const auto& c) { return c.placement.percent == std::vector<int>{20, 80, 0, 100, 0, 100}; }},
      {{"--gpu-batch-size", "32"}, [](const auto& c) { return c.placement.gpu_batch_size == 32; }},
      {{"--num-gpu-batches", "3"}, [](const auto& c) { return c.placement.num_gpu_batches == 3; }},
      {{"--cpu-cache-compute"}, [](const auto& c) { return c.placement.cpu_cache_compute == true; }},
      {{"--no-cpu-cache-compute"}, [](const auto& c) { return c.placement.cpu_cache_compute == false; }},
      {{"--hardware", "t4-208gb"}, [](const auto& c) { return c.compute.hardware == "t4-208gb"; }},
      {{"--kv-format", "fp32"}, [](const auto& c) { return c.placement.kv_format == KvFormat::kF32; }},
      {{"--prefetch-depth", "5"}, [](const auto& c) { return c.placement.prefetch_depth == 5; }},
      {{"--max-tokens-per-gpu-batch", "64"},
       [](const auto& c) { return c.placement.max_tokens_per_gpu_batch == 64; }},
      {{"--no-prefetch"}, [](const auto& c) { return !c.placement.prefetch; }},
      {{"--no-mixing"}, [](const auto& c) { return !c.placement.mixing; }},
      {{"--gpu-memory", "1GiB"}, [](const auto& c) { return c.memory.gpu == "1GiB"; }},
      {{"--cpu-memory", "2GiB"}, [](const auto& c) { return c.memory.cpu == "2GiB"; }},
      {{"--disk-memory", "0"}, [](const auto& c) { return c.memory.disk == "0"; }},
      {{"--disk-dir", "/d"}, [](const auto& c) { return c.memory.disk_dir == "/d"; }},
      {{"--offload-dir", "/d"}, [](const auto& c) { return c.memory.disk_dir == "/d"; }},
      {{"--threads", "3"}, [](const auto& c) { return c.compute.threads == 3; }},
      {{"--max-new-tokens", "7"}, [](const auto& c) { return c.generation.max_new_tokens == 7; }},
      {{"--gen-len", "0"}, [](const auto& c) { return c.generation.max_new_tokens == 0; }},
      {{"--do-sample"}, [](const auto& c) { return c.generation.do_sample; }},
      {{"--temperature", "0.5"}, [](const auto& c) { return c.generation.temperature == 0.5; }},
      {{"--top-k", "40"}, [](const auto& c) { return c.generation.top_k == 40; }},
      {{"--top-p", "0.9"}, [](const auto& c) { return c.generation.top_p == 0.9; }},
      {{"--seed", "18446744073709551615"}, [](const auto& c) { return c.generation.seed == ~0ULL; }},
      {{"--stop", "a", "--stop", "b"},
       [](const auto& c) {
         return c.generation.stop == std::vector<std::string>{"a", "b"};
       }},
      {{"--ignore-eos"}, [](const auto& c) { return c.generation.ignore_eos; }},
  };
  for (const Case& c : cases) {
    std::vector<std::string> args = c.args;
    args.emplace_back("prompt");
    EXPECT_TRUE(c.holds(parse(args))) << c.args[0];
    EXPECT_THAT(flags_.prompts, ElementsAre("prompt")) << c.args[0] << " does not swallow the prompt";
  }
}

TEST_F(FlagsTest, TakesFlexGensBenchmarkLine) {
  const GenerateConfig c = parse({"--percent",
                                  "20",
                                  "80",
                                  "0",
                                  "100",
                                  "0",
                                  "100",
                                  "--gpu-batch-size",
                                  "48",
                                  "--num-gpu-batches",
                                  "3",
                                  "--cpu-cache-compute",
                                  "--pin-weight",
                                  "0",
                                  "--sep-layer",
                                  "true",
                                  "--overlap",
                                  "true",
                                  "--prompt-len",
                                  "512",
                                  "--gen-len",
                                  "32"});
  EXPECT_EQ(c.synthetic.prompt_len, 512);
  EXPECT_EQ(c.generation.max_new_tokens, 32);
  EXPECT_FALSE(c.memory.pin_weights);
}

TEST_F(FlagsTest, RefusesFlexGensOtherFlagsByNameWithWhatToDo) {
  for (const std::vector<std::string>& args :
       std::vector<std::vector<std::string>>{{"--compress-cache"},
                                             {"--attn-sparsity", "0.1"},
                                             {"--debug-mode", "breakdown"},
                                             {"--cut-gen-len", "5"},
                                             {"--path", "_DUMMY_"},
                                             {"--log-file", "x"},
                                             {"--no-log"},
                                             {"--overlap", "false"}}) {
    std::vector<std::string> line = args;
    line.emplace_back("prompt");
    const std::string message = refusal(line);
    EXPECT_THAT(message, HasSubstr(args[0]));
    EXPECT_THAT(message, HasSubstr("; ")) << "says what to do";
  }
}

TEST_F(FlagsTest, FlexGensOverlapNamesTheSwitchThatThereIs) {
  EXPECT_THAT(refusal({"--overlap", "False", "prompt"}), HasSubstr("--no-prefetch"));
  EXPECT_TRUE(parse({"--overlap", "true", "prompt"}).placement.prefetch);
}

TEST_F(FlagsTest, RefusesBadValuesByName) {
  for (const std::vector<std::string>& args :
       std::vector<std::vector<std::string>>{{"--gpu-batch-size", "0"},
                                             {"--num-gpu-batches", "-1"},
                                             {"--kv-format", "int8"},
                                             {"--threads", "0"},
                                             {"--prefetch-depth", "1"},
                                             {"--max-tokens-per-gpu-batch", "0"},
                                             {"--no-cpu-cache-compute", "--cpu-cache-compute"},
                                             {"--max-new-tokens", "-1"},
                                             {"--top-k", "many"},
                                             {"--temperature", "-2"},
                                             {"--seed", "-1"},
                                             {"--prompt-len", "0"},
                                             {"--percent", "20", "80", "0", "100", "0", "much"}}) {
    std::vector<std::string> line = {"prompt"};
    line.insert(line.end(), args.begin(), args.end());
    EXPECT_THAT(refusal(line), HasSubstr(args[0]));
  }
}

TEST_F(FlagsTest, WantsExactlyOneSourceOfPrompts) {
  EXPECT_THAT(refusal({}), HasSubstr("no prompts"));
  EXPECT_THAT(refusal({"hello", "--input", "x"}), HasSubstr("more than one source"));
  EXPECT_THAT(refusal({"--prompts-file", "y", "--input", "x"}), HasSubstr("more than one source"));
  EXPECT_THAT(refusal({"--prompt-len", "4", "--input", "x"}), HasSubstr("more than one source"));
  EXPECT_THAT(refusal({"hello", "--num-prompts", "4"}), HasSubstr("--prompt-len"));
  EXPECT_EQ(refusal({"--input", "-"}), "accepted");
  EXPECT_EQ(refusal({"a", "b", "--prompt", "c"}), "accepted");
  EXPECT_EQ(flags_.prompts.size(), 3U);
}

TEST_F(FlagsTest, DefaultsOfRequestsAreChecked) {
  GenerationConfig config;
  config.stop = {"x"};
  config.top_k = 3;
  const offload::Request request = request_defaults(config);
  EXPECT_THAT(request.stop, ElementsAre("x"));
  EXPECT_EQ(request.sampling.top_k, 3);
  config.top_p = 1.5;
  EXPECT_THROW(request_defaults(config), Error);
  config.top_p = 1;
  config.stop = {""};
  EXPECT_THROW(request_defaults(config), Error);
}

}  // namespace
}  // namespace sluice::apps
