#include "apps/generate/flags.h"

#include <CLI/App.hpp>

#include "core/config/config.h"
#include "core/log.h"

namespace sluice::apps {
namespace {

/// A flag that sets one field of the configuration, after file and --set.
template <class Section, class T>
CLI::Option* add_setting(CLI::App& to, GenerateFlags& flags, const std::string& names,
                         Section GenerateConfig::*section, T Section::*field, const std::string& help) {
  const auto set = [&flags, section, field](const T& value) {
    flags.overrides.push_back([=](GenerateConfig& config) { config.*section.*field = value; });
  };
  return to.add_option_function<T>(names, set, help);
}

template <class Section, class T>
CLI::Option* add_switch(CLI::App& to, GenerateFlags& flags, const std::string& name,
                        Section GenerateConfig::*section, T Section::*field, bool value,
                        const std::string& help) {
  const auto set = [&flags, section, field, value] {
    flags.overrides.push_back([=](GenerateConfig& config) { config.*section.*field = value; });
  };
  return to.add_flag_callback(name, set, help);
}

void add_prompt_flags(CLI::App& command, GenerateFlags& flags) {
  command.option_defaults()->group("Prompts and results");
  // Both append: bound to one vector, the option would replace the positional texts.
  const auto append = [&flags](const std::vector<std::string>& texts) {
    flags.prompts.insert(flags.prompts.end(), texts.begin(), texts.end());
  };
  command.add_option_function<std::vector<std::string>>("prompts", append, "Texts to continue");
  command
      .add_option_function<std::vector<std::string>>("--prompt", append,
                                                     "A text to continue; may be repeated")
      ->allow_extra_args(false);
  command.add_option("--prompts-file", flags.prompts_file, "A text file with one prompt per line");
  command.add_option("--input", flags.input, "Requests as JSONL; - is standard input");
  command.add_option("--output", flags.output,
                     "Results as JSONL, in the order of the input; - is standard output");
  command.add_flag("--resume", flags.resume,
                   "Continue an interrupted --output: finished requests are skipped");
  command.add_flag(
      "--keep-going", flags.keep_going,
      "A request that cannot run becomes an error line; otherwise it stops the run before the first token");
  command.add_flag("--progress", flags.progress, "Show progress on stderr although it is no terminal");
  command.add_option("--trace", flags.trace, "Write the timeline, one row per lane, for ui.perfetto.dev");
  command.add_option("--stats-out", flags.stats_out, "Write configuration and figures of the run as JSONL");
}

void add_model_flags(CLI::App& command, GenerateFlags& flags) {
  command.option_defaults()->group("Model");
  add_setting(command, flags, "--model", &GenerateConfig::model, &ModelConfig::path,
              "A store, a Hugging Face folder (converted once), or random:opt-30b[:SEED]");
  add_setting(command, flags, "--store", &GenerateConfig::model, &ModelConfig::store,
              "Where the store of a converted folder is kept; default: beside it");
  add_setting(command, flags, "--config", &GenerateConfig::model, &ModelConfig::config,
              "A config.json for a folder that has none");
  add_setting(command, flags, "--tokenizer", &GenerateConfig::model, &ModelConfig::tokenizer,
              "A folder with vocab.json and merges.txt, for a model that has none");
  add_setting(command, flags, "--format", &GenerateConfig::model, &ModelConfig::format,
              "Format of the decoder layers' matrices of a folder or of random: (see sluice convert --help)");
  add_setting(command, flags, "--sparsity", &GenerateConfig::model, &ModelConfig::sparsity,
              "Share of zeros: a folder is pruned to it when it is converted, random: is made with it");
  add_switch(command, flags, "--compress-weight", &GenerateConfig::model, &ModelConfig::compress_weight, true,
             "4-bit weights: a folder is converted once to an int4 store beside it");
  add_switch(command, flags, "--no-bos", &GenerateConfig::model, &ModelConfig::add_bos, false,
             "Text prompts do not begin with the bos token");
}

void add_placement_flags(CLI::App& command, GenerateFlags& flags) {
  command.option_defaults()->group("Placement");
  add_setting(command, flags, "--percent", &GenerateConfig::placement, &PlacementConfig::percent,
              "W-gpu W-cpu C-gpu C-cpu A-gpu A-cpu: shares of weights, KV cache and activations; the "
              "rest of each pair is on disk. Default: the planner chooses what is predicted to be the "
              "fastest, with the other placement flags where they are stated (sluice plan shows why)")
      ->expected(6)
      ->allow_extra_args(false);
  add_setting(command, flags, "--gpu-batch-size", &GenerateConfig::placement,
              &PlacementConfig::gpu_batch_size, "Sequences of one GPU batch")
      ->check(CLI::PositiveNumber);
  add_setting(command, flags, "--num-gpu-batches", &GenerateConfig::placement,
              &PlacementConfig::num_gpu_batches,
              "GPU batches that share one pass over the weights (not a number of GPUs)")
      ->check(CLI::PositiveNumber);
  add_switch(command, flags, "--cpu-cache-compute", &GenerateConfig::placement,
             &PlacementConfig::cpu_cache_compute, true,
             "The CPU attends for decode rows whose KV is off the GPU, instead of moving it")
      ->excludes(add_switch(command, flags, "--no-cpu-cache-compute", &GenerateConfig::placement,
                            &PlacementConfig::cpu_cache_compute, false,
                            "It does not: KV that is off the GPU moves there; default with --percent"));
  const auto set_kv_format = [&flags](const std::string& name) {
    flags.overrides.push_back([format = parse_kv_format(name).value()](GenerateConfig& config) {
      config.placement.kv_format = format;
    });
  };
  command.add_option_function<std::string>("--kv-format", set_kv_format, "fp16 (default) or fp32")
      ->check(CLI::IsMember({"fp16", "fp32"}));
  add_setting(command, flags, "--prefetch-depth", &GenerateConfig::placement,
              &PlacementConfig::prefetch_depth,
              "Layers whose weights are on the GPU at once; default: chosen, with --percent 2")
      ->check(CLI::Range(2, 1024));
  add_setting(command, flags, "--max-tokens-per-gpu-batch", &GenerateConfig::placement,
              &PlacementConfig::max_tokens_per_gpu_batch,
              "Most rows of a GPU batch in one pass; bounds its workspace. Default: chosen, with --percent "
              "8192")
      ->check(CLI::PositiveNumber);
  add_setting(command, flags, "--piece-size", &GenerateConfig::placement, &PlacementConfig::piece_size,
              "Weights move in pieces of this size (default 32MiB)");
  add_switch(command, flags, "--no-mixing", &GenerateConfig::placement, &PlacementConfig::mixing, false,
             "Prefill and decode rows never share a pass");
  add_switch(command, flags, "--no-prefetch", &GenerateConfig::placement, &PlacementConfig::prefetch, false,
             "Weights come to the GPU only when it has come to their layer");
}

void add_memory_flags(CLI::App& command, GenerateFlags& flags) {
  command.option_defaults()->group("Memory");
  add_setting(command, flags, "--gpu-memory", &GenerateConfig::memory, &MemoryConfig::gpu,
              "Budget, for example 16GiB, of which a GPU's kernels get 64 MiB; default: what the placement "
              "needs, or with the planner most of what is free");
  add_setting(command, flags, "--cpu-memory", &GenerateConfig::memory, &MemoryConfig::cpu,
              "Budget of CPU memory");
  add_setting(command, flags, "--disk-memory", &GenerateConfig::memory, &MemoryConfig::disk,
              "Budget of the disk folder (KV, activations, weights of random: models)");
  add_setting(command, flags, "--disk-dir,--offload-dir", &GenerateConfig::memory, &MemoryConfig::disk_dir,
              "Folder of the disk tier; default: a private one under the system's temporary folder");
  add_setting(command, flags, "--device", &GenerateConfig::compute, &ComputeConfig::device,
              "auto, cpu, cuda or cuda:N; auto takes a GPU where there is one");
  add_switch(command, flags, "--batch-invariant", &GenerateConfig::compute, &ComputeConfig::batch_invariant,
             true, "Results do not depend on the shape of the block, bit for bit; slower on a GPU");
  add_setting(command, flags, "--threads", &GenerateConfig::compute, &ComputeConfig::threads,
              "Of the compute pool; default: all cores, but one beside a GPU")
      ->check(CLI::PositiveNumber);
  add_setting(command, flags, "--hardware", &GenerateConfig::compute, &ComputeConfig::hardware,
              "Profile that the planner and the report count with: a file or one that ships; default: your "
              "own (sluice profile), or, where there is something to choose, a short measurement");
}

void add_generation_flags(CLI::App& command, GenerateFlags& flags) {
  command.option_defaults()->group("Generation (defaults of requests)");
  add_setting(command, flags, "--max-new-tokens,--gen-len", &GenerateConfig::generation,
              &GenerationConfig::max_new_tokens, "Tokens to generate (default 32); 0 scores the prompt")
      ->check(CLI::NonNegativeNumber);
  add_switch(command, flags, "--do-sample", &GenerateConfig::generation, &GenerationConfig::do_sample, true,
             "Sample; otherwise the most likely token is taken");
  add_setting(command, flags, "--temperature", &GenerateConfig::generation, &GenerationConfig::temperature,
              "Divides the logits before sampling (default 1)")
      ->check(CLI::NonNegativeNumber);
  add_setting(command, flags, "--top-k", &GenerateConfig::generation, &GenerationConfig::top_k,
              "Sample among the k most likely tokens; 0 (default): all")
      ->check(CLI::NonNegativeNumber);
  add_setting(command, flags, "--top-p", &GenerateConfig::generation, &GenerationConfig::top_p,
              "Sample among the fewest tokens that have this mass (default 1)");
  add_setting(command, flags, "--seed", &GenerateConfig::generation, &GenerationConfig::seed,
              "Of the sampling draws (default 0)")
      ->check([](const std::string& text) { return text.starts_with('-') ? "is negative" : ""; });
  add_setting(command, flags, "--stop", &GenerateConfig::generation, &GenerationConfig::stop,
              "Text ends before this; may be repeated")
      ->allow_extra_args(false);
  add_switch(command, flags, "--ignore-eos", &GenerateConfig::generation, &GenerationConfig::ignore_eos, true,
             "Go on after the end-of-sequence token");
}

void add_synthetic_flags(CLI::App& command, GenerateFlags& flags) {
  command.option_defaults()->group("Synthetic benchmark (distinct random prompts)");
  add_setting(command, flags, "--prompt-len", &GenerateConfig::synthetic, &SyntheticConfig::prompt_len,
              "Tokens of each prompt; with --gen-len tokens generated after it")
      ->check(CLI::PositiveNumber);
  add_setting(command, flags, "--num-prompts", &GenerateConfig::synthetic, &SyntheticConfig::num_prompts,
              "How many; default: one block, of 4 sequences where nothing has to be chosen")
      ->check(CLI::PositiveNumber);
}

void add_config_flags(CLI::App& command, GenerateFlags& flags) {
  command.option_defaults()->group("Configuration");
  command.add_option("--run-config", flags.run_config, "A YAML file of settings; flags win");
  command.add_option("--set", flags.assignments, "section.key=value, for example placement.mixing=false")
      ->allow_extra_args(false);
  command.add_flag("--print-config", flags.print_config, "Print the resolved settings as YAML and exit");
}

struct ForeignFlag {
  const char* name;
  bool takes_value;
  const char* problem;
  const char* fix;
};

// FlexGen's flags that are not here (yet), by name.
constexpr ForeignFlag kRefused[] = {
    {"--compress-cache", false, "a compressed KV cache is not built yet", "leave it out: KV is fp16"},
    {"--attn-sparsity", true, "sparse attention is not built yet", "leave it out: attention is exact"},
    {"--debug-mode", true, "figures here are measured, never extrapolated",
     "use --trace FILE for a breakdown"},
    {"--cut-gen-len", true, "figures here are measured, never projected", "lower --gen-len"},
    {"--path", true, "weights are found through --model",
     "give --model FOLDER, and --store for the converted store"},
    {"--log-file", true, "there is no log file", "use --stats-out FILE (JSONL)"},
    {"--no-log", false, "there is no log file", "leave it out"},
    {"--cpu", false, "is short for --cpu-cache-compute in FlexGen", "write it out"},
    {"--debug", true, "figures here are measured, never extrapolated", "use --trace FILE for a breakdown"},
    {"--pad-to-seq-len", true, "nothing is padded here", "leave it out"},
};

// FlexGen's switches whose aim is reached otherwise, with what happens here.
constexpr ForeignFlag kHarmless[] = {
    {"--sep-layer", true, "has no effect: the schedule has stages, and placement does not depend on them",
     ""},
};

bool is_false(const std::vector<std::string>& values) {
  return !values.empty() &&
         (values[0] == "0" || values[0] == "false" || values[0] == "False" || values[0] == "no");
}

void add_flexgen_flags(CLI::App& command, GenerateFlags& flags) {
  constexpr const char* kHidden = "";
  for (const ForeignFlag& flag : kRefused) {
    const auto refuse = [&flag] {
      throw Error(Code::kUnsupported, fmt::format("{}: {}", flag.name, flag.problem), flag.fix);
    };
    if (flag.takes_value) {
      command.add_option_function<std::vector<std::string>>(flag.name, [refuse](const auto&) { refuse(); })
          ->expected(0, 1)
          ->allow_extra_args(false)
          ->group(kHidden);
    } else {
      command.add_flag_callback(flag.name, refuse)->group(kHidden);
    }
  }
  for (const ForeignFlag& flag : kHarmless) {
    const auto say = [&flag](const std::vector<std::string>&) { log_info("{} {}", flag.name, flag.problem); };
    command.add_option_function<std::vector<std::string>>(flag.name, say)
        ->expected(0, 1)
        ->allow_extra_args(false)
        ->group(kHidden);
  }
  const auto pin_weight = [&flags](const std::vector<std::string>& values) {
    flags.overrides.push_back(
        [pin = !is_false(values)](GenerateConfig& config) { config.memory.pin_weights = pin; });
  };
  command
      .add_option_function<std::vector<std::string>>(
          "--pin-weight", pin_weight,
          "0: weights in CPU memory are not pinned; they reach a GPU through pinned slabs, slower")
      ->expected(0, 1)
      ->allow_extra_args(false)
      ->group("Memory");
  const auto overlap = [](const std::vector<std::string>& values) {
    SLUICE_CHECK(!is_false(values), Code::kUnsupported,
                 "--overlap false: KV and activations always move beside computation",
                 "give --no-prefetch: weights do not");
    log_info("--overlap has no effect: transfers always overlap with computation");
  };
  command.add_option_function<std::vector<std::string>>("--overlap", overlap)
      ->expected(0, 1)
      ->allow_extra_args(false)
      ->group(kHidden);
}

std::int64_t count_sources(const GenerateFlags& flags, const GenerateConfig& config) {
  return static_cast<std::int64_t>(!flags.prompts.empty()) +
         static_cast<std::int64_t>(!flags.prompts_file.empty()) +
         static_cast<std::int64_t>(!flags.input.empty()) +
         static_cast<std::int64_t>(config.synthetic.prompt_len > 0);
}

}  // namespace

void add_generate_flags(CLI::App& command, GenerateFlags& flags) {
  add_prompt_flags(command, flags);
  add_model_flags(command, flags);
  add_placement_flags(command, flags);
  add_memory_flags(command, flags);
  add_generation_flags(command, flags);
  add_synthetic_flags(command, flags);
  add_config_flags(command, flags);
  add_flexgen_flags(command, flags);
}

GenerateConfig resolve_config(const GenerateFlags& flags) {
  GenerateConfig config;
  if (flags.run_config.empty()) {
    apply_overrides(config, flags.assignments);
  } else {
    config = load_config<GenerateConfig>(flags.run_config, flags.assignments);
  }
  for (const auto& override_field : flags.overrides) override_field(config);
  if (flags.print_config) return config;
  SLUICE_CHECK(!config.model.path.empty(), Code::kInvalidArgument, "no model",
               "give --model FOLDER or random:opt-1.3b");
  SLUICE_CHECK(config.synthetic.num_prompts == 0 || config.synthetic.prompt_len > 0, Code::kInvalidArgument,
               "--num-prompts belongs to the synthetic benchmark", "give --prompt-len, too");
  const std::int64_t sources = count_sources(flags, config);
  SLUICE_CHECK(sources == 1, Code::kInvalidArgument,
               sources == 0 ? "no prompts" : "prompts come from more than one source",
               "give one of: texts, --prompts-file, --input, or --prompt-len for the synthetic benchmark");
  return config;
}

offload::Request request_defaults(const GenerationConfig& config) {
  offload::Request request;
  request.max_new_tokens = config.max_new_tokens;
  request.sampling.do_sample = config.do_sample;
  request.sampling.temperature = static_cast<float>(config.temperature);
  request.sampling.top_k = static_cast<std::int32_t>(config.top_k);
  request.sampling.top_p = static_cast<float>(config.top_p);
  request.sampling.seed = config.seed;
  validate(request.sampling);
  SLUICE_CHECK(config.max_new_tokens >= 0, Code::kInvalidArgument,
               fmt::format("max_new_tokens is {}", config.max_new_tokens), "give 0 or more");
  for (const std::string& stop : config.stop) {
    SLUICE_CHECK(!stop.empty(), Code::kInvalidArgument,
                 "--stop is an empty text, which would end every result", "give a text that is not empty");
  }
  request.stop = config.stop;
  request.ignore_eos = config.ignore_eos;
  return request;
}

}  // namespace sluice::apps
