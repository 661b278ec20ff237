// `sluice generate`: prompts in, continuations out, whatever the size of the model.
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <unistd.h>

#include <CLI/App.hpp>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/generate/flags.h"
#include "apps/generate/forecast.h"
#include "apps/generate/model.h"
#include "apps/generate/plan.h"
#include "apps/generate/progress.h"
#include "apps/generate/report.h"
#include "apps/generate/run.h"
#include "apps/generate/stats_file.h"
#include "apps/generate/synthetic.h"
#include "apps/interrupt.h"
#include "core/config/config.h"
#include "core/error.h"
#include "core/log.h"
#include "offload/choose_device.h"
#include "offload/plan_run.h"
#include "offload/weights/weight_source.h"
#include "policy/run_shape.h"

namespace sluice::apps {
namespace {

OnBadRequest on_bad_request(const GenerateFlags& flags) {
  return flags.keep_going ? OnBadRequest::kKeepGoing : OnBadRequest::kStop;
}

/// What needs no model is read first, so that a bad line is reported before a long conversion.
std::vector<PendingRequest> read_requests(const GenerateFlags& flags, const offload::Request& defaults) {
  if (!flags.input.empty()) return requests_from_jsonl(flags.input, defaults, on_bad_request(flags));
  if (!flags.prompts_file.empty()) return requests_from_text_file(flags.prompts_file, defaults);
  return requests_from_texts(flags.prompts, defaults);
}

SyntheticWork synthetic_work(const GenerateConfig& config) {
  return {.prompt_len = config.synthetic.prompt_len,
          .gen_len = config.generation.max_new_tokens,
          .num_prompts = config.synthetic.num_prompts > 0 ? config.synthetic.num_prompts
                                                          : stated_block_size(config.placement),
          .seed = config.generation.seed};
}

ResultFormat result_format(const GenerateFlags& flags, bool is_synthetic) {
  if (!flags.input.empty() || !flags.output.empty()) return ResultFormat::kJsonl;
  return is_synthetic ? ResultFormat::kNone : ResultFormat::kText;
}

/// What decides the results beside the requests themselves.
RunRecord run_record(const OpenedModel& model, const GenerateConfig& config) {
  RunRecord record;
  record.model = model.fingerprint;
  record.options["kv_format"] = std::string(kv_format_name(config.placement.kv_format));
  return record;
}

std::vector<RequestKey> request_keys(const std::vector<PendingRequest>& requests) {
  std::vector<RequestKey> keys;
  keys.reserve(requests.size());
  for (const PendingRequest& pending : requests) {
    keys.push_back(
        {.id = pending.id, .prompt_ids = pending.request.prompt_ids, .hash = request_hash(pending)});
  }
  return keys;
}

class GenerateCommand {
 public:
  explicit GenerateCommand(const GenerateFlags& flags) : flags_(flags), config_(resolve_config(flags)) {}

  void run() {
    if (flags_.print_config) {
      fmt::print("{}", print_config(config_));
      return;
    }
    const InterruptScope interrupt;
    prepare(interrupt);
    ResultOutput output({.path = flags_.output.empty() ? "-" : flags_.output, .resume = flags_.resume},
                        run_record(model_, config_), request_keys(requests_));
    interrupt.throw_if_requested();
    const std::unique_ptr<Generator> generator =
        needs_engine(output) ? make_engine_generator(model_.source, model_.tokenizer.get(), options_)
                             : make_idle_generator();
    StatsFile stats_file(flags_.stats_out, config_, options_, model_.fingerprint);
    output.open();
    try {
      execute(*generator, output, interrupt.token());
    } catch (...) {
      report(*generator, stats_file, nullptr);  // what was achieved until then
      throw;
    }
    const std::optional<Forecast> said = forecast_of(*generator);
    report(*generator, stats_file, said ? &*said : nullptr);
    if (is_synthetic()) fmt::print("{}", benchmark_report(generator->stats(), options_.workload));
    stats_file.finish();
  }

 private:
  bool needs_engine(const ResultOutput& output) const {
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      if (requests_[i].problem.ok() && !output.is_done(static_cast<std::int64_t>(i))) return true;
    }
    return false;
  }

  bool is_synthetic() const { return config_.synthetic.prompt_len > 0; }

  void prepare(const InterruptScope& interrupt) {
    const offload::Request defaults = request_defaults(config_.generation);
    if (!is_synthetic()) requests_ = read_requests(flags_, defaults);
    SLUICE_CHECK(is_synthetic() || !requests_.empty(), Code::kInvalidArgument, "the input holds no request",
                 "give at least one prompt");
    model_ = open_model(config_.model, interrupt.token());
    if (is_synthetic()) requests_ = synthetic_requests(synthetic_work(config_), model_.spec, defaults);
    prepare_requests(
        requests_,
        {.spec = &model_.spec, .tokenizer = model_.tokenizer.get(), .add_bos = config_.model.add_bos},
        on_bad_request(flags_));
    plan(defaults);
    options_.trace_file = flags_.trace;
  }

  void plan(const offload::Request& defaults) {
    RunWork work = work_of(requests_);
    if (work.requests.empty()) return;
    const PlacementConfig& stated = config_.placement;
    work.fill_block = is_synthetic() && config_.synthetic.num_prompts == 0 && stated.gpu_batch_size == 0 &&
                      stated.num_gpu_batches == 0;
    EnginePlan plan = plan_engine(config_, model_.source, work);
    options_ = std::move(plan.options);
    profile_ = std::move(plan.profile);
    const std::string& hardware = config_.compute.hardware;
    if (!profile_ && !hardware.empty())
      profile_ = named_profile(hardware, device_description(config_.compute.device));
    if (!work.fill_block || !plan.searched) return;
    // The planner chose the block that the benchmark runs.
    SyntheticWork block = synthetic_work(config_);
    block.num_prompts = options_.placement.block_size();
    requests_ = synthetic_requests(block, model_.spec, defaults);
    options_.workload = work_of(requests_).workload;
    log_info("the benchmark runs one block: {} prompts (--num-prompts)", block.num_prompts);
  }

  void execute(Generator& generator, ResultOutput& output, std::stop_token stop) {
    const bool is_tty = isatty(STDERR_FILENO) != 0;
    std::optional<ProgressLine> line;
    if (flags_.progress || (is_tty && log_enabled(LogLevel::kInfo))) line.emplace(is_tty);
    const auto start = std::chrono::steady_clock::now();
    const std::function<ProgressSample()> sample = [&] {
      const std::chrono::duration<double> at = std::chrono::steady_clock::now() - start;
      return ProgressSample{
          .at_sec = at.count(), .done = counts_.done, .total = counts_.total, .stats = generator.stats()};
    };
    run_requests(generator, requests_, output, result_format(flags_, is_synthetic()), on_bad_request(flags_),
                 stop, counts_, [&] {
                   if (line) line->update(sample);
                 });
  }

  /// By the profile that was planned with or named, else the user's own; nothing if there is none.
  std::optional<Forecast> forecast_of(const Generator& generator) {
    const bool wanted = log_enabled(LogLevel::kInfo) || !flags_.stats_out.empty();
    const offload::EngineOptions* const ran = generator.options();
    if (!wanted || ran == nullptr || counts_.work.empty()) return std::nullopt;
    try {
      if (!profile_) profile_ = user_profile(generator.stats().device);
      if (!profile_) return std::nullopt;
      const offload::WeightSource weights(model_.source);
      std::vector<Encoding> formats;
      for (const offload::SourceTensor& tensor : weights.tensors()) formats.push_back(tensor.format.encoding);
      const policy::RunShape shape =
          make_run_shape(weights.spec(), weights.sizes(), ran->placement, ran->workload,
                         offload::run_traits(weights, *ran, offload::device_kind(ran->device)));
      return forecast(*profile_, shape, formats, counts_.work, options_.num_threads);
    } catch (const Error& e) {  // the run is over and well: a bad profile takes only these lines
      log_warn("no bound and no prediction: {}", e.what());
      return std::nullopt;
    }
  }

  void report(const Generator& generator, StatsFile& stats_file, const Forecast* said) const {
    const offload::RunStats stats = generator.stats();
    const offload::EngineOptions* const ran = generator.options();
    if (log_enabled(LogLevel::kInfo)) {
      fmt::print(stderr, "{}",
                 run_report(stats, counts_, ran != nullptr ? ran->placement : options_.placement, said));
    }
    stats_file.write(summary_json(stats, counts_, said));
  }

  const GenerateFlags& flags_;
  const GenerateConfig config_;
  std::vector<PendingRequest> requests_;
  OpenedModel model_;
  offload::EngineOptions options_;
  std::optional<KnownProfile> profile_;  // that the planner counted with, or the report does
  RunCounts counts_;
};

}  // namespace

void add_generate_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("generate", "Continue prompts, or score them, or run a synthetic benchmark");
  const auto flags = std::make_shared<GenerateFlags>();
  add_generate_flags(*command, *flags);
  command->footer(R"(Examples
  sluice generate --model ~/models/opt-1.3b "The old lighthouse"
  sluice generate --model ~/models/opt-30b --percent 20 80 0 100 0 100 --cpu-cache-compute \
    --gpu-batch-size 32 --num-gpu-batches 2 --input requests.jsonl --output results.jsonl
  sluice generate --model random:opt-30b --prompt-len 512 --gen-len 32 --gpu-memory 16GiB

A line of --input: {"id"?, "prompt": "..." | "prompt_ids": [...], "max_new_tokens"=32, "do_sample"=false,
"temperature"=1, "top_k"=0, "top_p"=1, "seed"?, "stop": "..."|[...], "stop_ids"?, "ignore_eos"=false,
"logprobs": k?, "prompt_logprobs"=false}
A line of the output: {"id", "prompt_ids", "token_ids", "text", "finish_reason": "eos"|"stop"|"length",
"logprobs"?, "prompt_logprobs"?}; with --keep-going {"id", "error": {"message", "code"}}.
Beside --output stands <output>.sluice.json, which lets --resume tell the same run from another.)");
  command->callback([flags] { GenerateCommand(*flags).run(); });
}

}  // namespace sluice::apps
