#include "apps/plan/problem.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <utility>

#include <CLI/App.hpp>
#include <fmt/format.h>

#include "apps/generate/model.h"
#include "apps/generate/requests.h"
#include "apps/profile/find_profile.h"
#include "core/config/config.h"
#include "core/config/model_config.h"
#include "core/config/nearest.h"
#include "core/error.h"
#include "core/log.h"
#include "core/model/hf_config.h"
#include "core/store/manifest.h"
#include "core/units.h"
#include "kernels/format/expected_bytes.h"
#include "kernels/format/format_rules.h"
#include "kernels/ops/expand.h"
#include "offload/choose_device.h"
#include "offload/plan_run.h"
#include "offload/weights/weight_source.h"
#include "policy/rates.h"

namespace sluice::apps {
namespace {

namespace fs = std::filesystem;

/// The lengths that --input's requests have; a text that is not tokenized here counts its bytes / 4.
std::vector<policy::RequestLength> lengths_of_input(const std::string& path, std::int64_t max_positions) {
  constexpr std::int64_t kBytesPerToken = 4;
  offload::Request defaults;
  std::vector<policy::RequestLength> lengths;
  bool guessed = false;
  for (const PendingRequest& pending : requests_from_jsonl(path, defaults, OnBadRequest::kStop)) {
    std::int64_t prompt = std::ssize(pending.request.prompt_ids);
    if (pending.prompt) {
      prompt = div_up(std::ssize(*pending.prompt), kBytesPerToken) + 1;
      guessed = true;
    }
    prompt = std::clamp<std::int64_t>(prompt, 1, max_positions);
    lengths.push_back({prompt, std::min(pending.request.max_new_tokens, max_positions - prompt)});
  }
  SLUICE_CHECK(!lengths.empty(), Code::kInvalidArgument, fmt::format("--input {}: holds no request", path),
               "give at least one line");
  if (guessed) log_info("text prompts are counted as one token for {} bytes", kBytesPerToken);
  return lengths;
}

struct Work {
  std::vector<policy::RequestLength> requests;
  bool fill_block = false;
};

Work work_of(const PlanFlags& flags, const ModelSpec& spec) {
  const bool stated = flags.prompt_len > 0 || flags.gen_len >= 0 || flags.num_requests > 0;
  SLUICE_CHECK(flags.input.empty() || !stated, Code::kInvalidArgument,
               "--input and --prompt-len, --gen-len or --num-requests contradict each other",
               "give the requests, or their lengths");
  if (!flags.input.empty()) return {lengths_of_input(flags.input, spec.max_positions), false};
  const std::int64_t prompt = flags.prompt_len > 0 ? flags.prompt_len : 512;
  const std::int64_t gen = flags.gen_len >= 0 ? flags.gen_len : 32;
  SLUICE_CHECK(prompt + gen <= spec.max_positions, Code::kInvalidArgument,
               fmt::format("--prompt-len {} and --gen-len {}: the context of '{}' is {} tokens", prompt, gen,
                           spec.name, spec.max_positions),
               fmt::format("lower them: the longest prompt with {} new tokens is {}", gen,
                           std::max<std::int64_t>(0, spec.max_positions - gen)));
  const policy::RequestLength each{prompt, gen};
  if (flags.num_requests > 0) return {{static_cast<std::size_t>(flags.num_requests), each}, false};
  return {{each}, true};
}

/// What is known of the model before its weights are.
struct PlannedModel {
  ModelSpec spec;
  std::optional<offload::WeightSource> store;  ///< with its own formats
  bool synthetic = false;
};

PlannedModel model_of(const PlanFlags& flags) {
  const RandomModelName random = parse_random_model(flags.model);
  PlannedModel model;
  if (!random.name.empty()) {
    const std::optional<ModelSpec> spec = find_builtin_model(random.name);
    if (!spec) {
      const std::vector<std::string> names = builtin_model_names();
      const std::vector<std::string_view> known(names.begin(), names.end());
      throw Error(Code::kNotFound,
                  fmt::format("--model {}: no built-in model '{}'", flags.model, random.name),
                  suggest_name(random.name, known));
    }
    model.spec = *spec;
    model.synthetic = true;
    return model;
  }
  const fs::path path(flags.model);
  SLUICE_CHECK(fs::exists(path), Code::kNotFound, fmt::format("--model {}: does not exist", flags.model),
               "give a store, a Hugging Face folder, or random:NAME");
  if (is_store(path)) {
    SLUICE_CHECK(flags.format.empty() && flags.allow_formats.empty(), Code::kInvalidArgument,
                 "--format and --allow-formats: a store has its formats already",
                 "plan with the checkpoint, or leave them out");
    offload::ModelSource source;
    source.store = path;
    model.store.emplace(source);
    model.spec = model.store->spec();
    return model;
  }
  SLUICE_CHECK(fs::exists(path / "config.json"), Code::kNotFound,
               fmt::format("--model {}: neither a store nor a folder with config.json", flags.model),
               "give a store, a Hugging Face folder, or random:NAME");
  model.spec = read_hf_config(path / "config.json");
  return model;
}

Encoding encoding_of(const std::string& flag, const std::string& name) {
  const std::optional<Encoding> encoding = parse_encoding(name);
  if (encoding) return *encoding;
  std::vector<std::string_view> known;
  for (const Encoding each : all_encodings()) known.push_back(encoding_name(each));
  throw Error(Code::kInvalidArgument, fmt::format("{} {}: is not known", flag, name),
              suggest_name(name, known));
}

/// Sizes and formats if the decoder layers' matrices are stored so. Where bytes depend on the zeros, they are
/// those of evenly spread ones.
void set_stored_sizes(policy::PlanProblem& problem, Encoding encoding, double sparsity,
                      kernels::DeviceKind device) {
  problem.traits.expanded_bytes = 0;
  std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> sizes;  // of encoded tensors, by shape
  for (const TensorSpec& tensor : model_tensors(problem.spec)) {
    const WeightFormat dense{Encoding::kDense, problem.spec.weight_dtype};
    const WeightFormat format =
        kernels::can_be_encoded(tensor) ? WeightFormat{encoding, problem.spec.weight_dtype} : dense;
    std::int64_t bytes = 0;
    if (has_fixed_size(format.encoding)) {
      bytes = weight_bytes(format, tensor.rows, tensor.cols);
    } else {
      const auto [size, added] = sizes.try_emplace({tensor.rows, tensor.cols});
      if (added) size->second = kernels::expected_bytes(format, tensor.rows, tensor.cols, sparsity);
      bytes = size->second;
    }
    problem.sizes.push_back({tensor.unit, bytes, tensor.is_vector});
    problem.formats.push_back(format.encoding);
    problem.traits.expanded_bytes = std::max(
        problem.traits.expanded_bytes, kernels::expansion_bytes(format, tensor.rows, tensor.cols, device));
  }
}

void set_stated_budgets(policy::PlanProblem& problem, const PlanFlags& flags) {
  const policy::MachineMemory& memory = problem.hardware.memory;
  const auto bytes = [](const std::string& text, const char* flag, double gib) {
    return text.empty() ? static_cast<std::int64_t>(gib * static_cast<double>(1_GiB))
                        : parse_bytes(text, flag);
  };
  problem.budget_bytes = {{bytes(flags.gpu_memory, "--gpu-memory", memory.gpu_gib),
                           bytes(flags.cpu_memory, "--cpu-memory", memory.cpu_gib),
                           bytes(flags.disk_memory, "--disk-memory", memory.disk_gib)}};
  const auto beyond = [&](Tier tier, double gib, const char* flag) {
    const auto most = static_cast<std::int64_t>(gib * static_cast<double>(1_GiB));
    if (problem.budget_bytes[tier] > most) {
      log_warn("{} is {}, but the profile's machine gives {}", flag, format_bytes(problem.budget_bytes[tier]),
               format_bytes(most));
    }
  };
  beyond(Tier::kGpu, memory.gpu_gib, "--gpu-memory");
  beyond(Tier::kCpu, memory.cpu_gib, "--cpu-memory");
  if (memory.gpu_is_host) {
    problem.host_bytes = static_cast<std::int64_t>(memory.cpu_gib * static_cast<double>(1_GiB));
  } else if (!flags.gpu_memory.empty()) {
    problem.holds_page_table = true;
    problem.beside_gpu_bytes = offload::kKernelBytes;
    problem.budget_bytes[Tier::kGpu] = offload::arena_budget(problem.budget_bytes[Tier::kGpu]);
  }
}

policy::PlanChoices choices_of(const PlanFlags& flags) {
  policy::PlanChoices choices;
  if (!flags.percent.empty()) {
    const policy::Percents percents = policy::parse_percents(flags.percent);
    choices.weights = percents.weights;
    choices.kv_cache = percents.kv_cache;
    choices.activations = percents.activations;
  }
  SLUICE_CHECK(!flags.cpu_cache_compute || !flags.no_cpu_cache_compute, Code::kInvalidArgument,
               "--cpu-cache-compute and --no-cpu-cache-compute contradict each other", "give one of them");
  if (flags.cpu_cache_compute) choices.cpu_attention = true;
  if (flags.no_cpu_cache_compute) choices.cpu_attention = false;
  choices.gpu_batch_size = flags.gpu_batch_size;
  choices.num_gpu_batches = flags.num_gpu_batches;
  choices.prefetch_depth = flags.prefetch_depth;
  choices.max_tokens_per_gpu_batch = flags.max_tokens_per_gpu_batch;
  choices.attention_threads = flags.threads;
  choices.mixing = !flags.no_mixing;
  choices.prefetch = !flags.no_prefetch;
  choices.kv_format = parse_kv_format(flags.kv_format).value();
  return choices;
}

}  // namespace

void add_plan_flags(CLI::App& command, PlanFlags& flags) {
  command.option_defaults()->group("Model and machine");
  command.add_option("--model", flags.model, "A store, a Hugging Face folder, or random:NAME")->required();
  command.add_option(
      "--hardware", flags.hardware,
      "A profile (sluice profile), or the name of one that ships; default: the user's own, or a short "
      "measurement");
  command.add_option("--format", flags.format,
                     "Of the decoder layers' matrices, for a model that is no store yet");
  command.add_option("--sparsity", flags.sparsity, "Share of zeros in them")->check(CLI::Range(0.0, 1.0));
  command
      .add_option(
          "--allow-formats", flags.allow_formats,
          "Formats to choose from (dense, int4_g64, ...); which of them keep the quality is yours to say")
      ->delimiter(',');
  command.add_option("--device", flags.device, "Where there is no --hardware: auto, cpu, cuda or cuda:N");
  command.option_defaults()->group("Work");
  command.add_option("--prompt-len", flags.prompt_len, "Tokens of each prompt (default 512)")
      ->check(CLI::PositiveNumber);
  command.add_option("--gen-len,--max-new-tokens", flags.gen_len, "Tokens generated for each (default 32)")
      ->check(CLI::NonNegativeNumber);
  command
      .add_option("--num-requests,--num-prompts", flags.num_requests,
                  "How many; default: as many as the block has seats")
      ->check(CLI::PositiveNumber);
  command.add_option("--input", flags.input, "Requests as JSONL: their lengths are planned for");
  command
      .add_option("--max-latency", flags.max_latency_sec, "Most seconds from a request's start to its end")
      ->check(CLI::PositiveNumber);
  command.option_defaults()->group("Memory");
  command.add_option("--gpu-memory", flags.gpu_memory, "Budget, for example 16GiB; default: the profile's");
  command.add_option("--cpu-memory", flags.cpu_memory, "Budget of CPU memory");
  command.add_option("--disk-memory", flags.disk_memory, "Budget of the disk folder; 0: no KV on disk");
  command.add_option("--disk-dir", flags.disk_dir, "Folder whose disk is measured without --hardware");
  command.option_defaults()->group("What you fix yourself");
  command.add_option("--percent", flags.percent, "W-gpu W-cpu C-gpu C-cpu A-gpu A-cpu")->expected(6);
  command.add_flag("--cpu-cache-compute", flags.cpu_cache_compute,
                   "The CPU attends over KV that is off the GPU");
  command.add_flag("--no-cpu-cache-compute", flags.no_cpu_cache_compute, "It does not");
  command.add_option("--gpu-batch-size", flags.gpu_batch_size, "Sequences of one GPU batch")
      ->check(CLI::PositiveNumber);
  command.add_option("--num-gpu-batches", flags.num_gpu_batches, "GPU batches of a block")
      ->check(CLI::PositiveNumber);
  command.add_option("--prefetch-depth", flags.prefetch_depth, "Layers whose weights are on the GPU at once")
      ->check(CLI::Range(2, 1024));
  command
      .add_option("--max-tokens-per-gpu-batch", flags.max_tokens_per_gpu_batch,
                  "Most rows of a GPU batch in one pass")
      ->check(CLI::PositiveNumber);
  command
      .add_option("--threads", flags.threads, "Threads that attend on the CPU; default: chosen beside a GPU")
      ->check(CLI::PositiveNumber);
  command.add_option("--kv-format", flags.kv_format, "fp16 (default) or fp32")
      ->check(CLI::IsMember({"fp16", "fp32"}));
  command.add_flag("--no-mixing", flags.no_mixing, "Prefill and decode rows never share a pass");
  command.add_flag("--no-prefetch", flags.no_prefetch,
                   "Weights come to the GPU only when it has come to their layer");
}

policy::HardwareProfile hardware_of(const PlanFlags& flags) {
  return find_profile(flags.hardware, flags.device, flags.disk_dir).hardware;
}

std::vector<NamedProblem> problems_of(const PlanFlags& flags, const policy::HardwareProfile& hardware) {
  const PlannedModel model = model_of(flags);
  const Work work = work_of(flags, model.spec);
  policy::PlanProblem common;
  common.spec = model.spec;
  common.requests = work.requests;
  common.fill_block = work.fill_block;
  common.hardware = hardware;
  common.choices = choices_of(flags);
  if (const std::vector<int> rows = policy::attention_threads(hardware); !rows.empty()) {
    SLUICE_CHECK(flags.threads == 0 || flags.threads >= rows.front(), Code::kUnsupported,
                 fmt::format("--threads {}: the profile measured attention with {} to {}", flags.threads,
                             rows.front(), rows.back()),
                 "profile with fewer threads, or leave it out");
  }
  common.max_latency_sec = flags.max_latency_sec;
  common.weights_on_disk = model.synthetic;
  for (const policy::RequestLength& request : work.requests)
    common.workload.add_request(request.prompt_len, request.gen_len);
  const auto kind =
      hardware.memory.gpu_is_host ? offload::DeviceChoice::Kind::kCpu : offload::DeviceChoice::Kind::kCuda;
  set_stated_budgets(common, flags);
  std::vector<NamedProblem> problems;
  if (model.store) {
    NamedProblem named{"the store's", common};
    named.problem.traits = offload::device_traits(*model.store, {.kind = kind});
    named.problem.sizes = model.store->sizes();
    for (const offload::SourceTensor& tensor : model.store->tensors())
      named.problem.formats.push_back(tensor.format.encoding);
    problems.push_back(std::move(named));
    return problems;
  }
  offload::ModelSource dense;
  dense.random_spec = model.spec;
  common.traits = offload::device_traits(offload::WeightSource(dense), {.kind = kind});
  std::vector<std::string> formats = flags.allow_formats;
  SLUICE_CHECK(formats.empty() || flags.format.empty(), Code::kInvalidArgument,
               "--format and --allow-formats contradict each other", "give one of them");
  if (formats.empty()) formats.push_back(flags.format.empty() ? "dense" : flags.format);
  for (const std::string& name : formats) {
    const Encoding encoding = encoding_of(flags.allow_formats.empty() ? "--format" : "--allow-formats", name);
    NamedProblem named{name, common};
    set_stored_sizes(named.problem, encoding, flags.sparsity,
                     hardware.memory.gpu_is_host ? kernels::DeviceKind::kCpu : kernels::DeviceKind::kCuda);
    problems.push_back(std::move(named));
  }
  return problems;
}

}  // namespace sluice::apps
