// `sluice bench ragged`: requests of many lengths that end when they end, against the least time that they
// can take at this machine's own rates (policy/work_floor.h).
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <CLI/App.hpp>
#include <fmt/format.h>

#include "apps/bench_common.h"
#include "apps/commands.h"
#include "apps/device_rates.h"
#include "apps/generate/config.h"
#include "apps/generate/model.h"
#include "apps/generate/plan.h"
#include "apps/interrupt.h"
#include "apps/plan/explain.h"
#include "core/error.h"
#include "core/log.h"
#include "core/units.h"
#include "kernels/device/cpu/thread_pool.h"
#include "offload/choose_device.h"
#include "offload/engine.h"
#include "offload/weights/weight_source.h"
#include "policy/work_floor.h"

namespace sluice::apps {
namespace {

// Issue's limits for OPT-30B on the reference machine.
constexpr double kMust = 0.75, kAim = 0.88;
constexpr int kRateRounds = 5;

struct BenchRaggedFlags {
  std::int64_t requests = 400;
  std::int64_t shortest_prompt = 32, longest_prompt = 1500, most_new_tokens = 128;
  std::uint64_t seed = 1;
  GenerateConfig config;
};

/// Lengths from uniform distributions. Every other request samples. Sixty random ids end a text, too, beside
/// the end token, so that some end early.
std::vector<offload::Request> ragged_requests(const BenchRaggedFlags& options, const ModelSpec& spec) {
  constexpr int kStopIds = 60;
  std::mt19937_64 random(options.seed);  // its sequence is the same everywhere
  const auto below = [&](std::int64_t bound) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(bound));
  };
  std::vector<offload::Request> requests;
  for (std::int64_t i = 0; i < options.requests; ++i) {
    offload::Request request;
    const std::int64_t length =
        options.shortest_prompt + below(options.longest_prompt - options.shortest_prompt + 1);
    for (std::int64_t t = 0; t < length; ++t)
      request.prompt_ids.push_back(static_cast<std::int32_t>(below(spec.vocab_size)));
    request.max_new_tokens = 1 + below(options.most_new_tokens);
    for (int s = 0; s < kStopIds; ++s)
      request.stop_ids.push_back(static_cast<std::int32_t>(below(spec.vocab_size)));
    if (i % 2 == 1) {
      request.sampling.do_sample = true;
      request.sampling.seed = options.seed + static_cast<std::uint64_t>(i);
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

std::int64_t lane_bytes(const offload::RunStats& stats, std::string_view lane) {
  for (const offload::LaneStats& one : stats.lanes) {
    if (one.name == lane) return one.bytes;
  }
  return 0;
}

void run_bench(const BenchRaggedFlags& options) {
  require_measuring_build();
  SLUICE_CHECK(options.shortest_prompt <= options.longest_prompt, Code::kInvalidArgument,
               fmt::format("prompts of {} to {} tokens", options.shortest_prompt, options.longest_prompt),
               "give --min-prompt below --max-prompt");
  const InterruptScope interrupt;
  const OpenedModel model = open_model(options.config.model, interrupt.token());
  std::vector<offload::Request> requests = ragged_requests(options, model.spec);
  RunWork wanted;
  for (const offload::Request& request : requests) {
    wanted.workload.add_request(std::ssize(request.prompt_ids), request.max_new_tokens);
    wanted.requests.push_back({std::ssize(request.prompt_ids), request.max_new_tokens});
  }
  const offload::EngineOptions planned = plan_engine(options.config, model.source, wanted).options;
  if (!options.config.placement.percent.empty())
    log_info("{} requests with {}", options.requests, flags_of(planned.placement, planned.num_threads));

  policy::MeasuredRates rates;
  {  // before the run takes the memory
    const int threads =
        planned.num_threads > 0 ? planned.num_threads : offload::default_threads(planned.device);
    kernels::ThreadPool pool(1);
    const std::unique_ptr<kernels::Device> device = offload::make_device(planned.device, pool);
    if (device->has_own_memory()) rates = measure_device_rates(*device, threads, kRateRounds).medians();
  }
  offload::Engine engine(model.source, nullptr, planned);
  std::vector<policy::SequenceWork> work;
  for (offload::Request& request : requests) {
    const auto prompt = std::ssize(request.prompt_ids);
    work.push_back({prompt, 0, policy::Workload::seat_tokens(prompt, request.max_new_tokens)});
    engine.submit(std::move(request));
  }
  std::int64_t ended = 0, ended_early = 0;
  try {
    engine.run(interrupt.token(), [&](const offload::Result& result) {
      if (result.finish_reason == offload::FinishReason::kCancelled) return;
      work.at(static_cast<std::size_t>(result.index)).generated = std::ssize(result.token_ids);
      ++ended;
      ended_early += result.finish_reason != offload::FinishReason::kLength;
    });
  } catch (const Error&) {
    log_info("{} of {} requests were done after {:.1f} s", ended, options.requests, engine.stats().wall_sec);
    throw;
  }

  const offload::RunStats stats = engine.stats();
  const policy::Placement& placement = engine.options().placement;
  fmt::print(
      "{}\n{}, {} requests, prompts of {} to {} tokens, up to {} new ones; {} ended before their length\n",
      stats.device, options.config.model.path, options.requests, options.shortest_prompt,
      options.longest_prompt, options.most_new_tokens, ended_early);
  fmt::print("  placement        {}, {} x {} sequences, CPU attention {}\n",
             policy::to_string(placement.percents), placement.gpu_batch_size, placement.num_gpu_batches,
             placement.cpu_attention ? "on" : "off");
  const double tokens = static_cast<double>(stats.generated_tokens);
  fmt::print(
      "  run              {} prompt and {} new tokens in {:.2f} s: {:.2f} tokens/s; {} passes, {:.1f} GB to "
      "the GPU\n",
      stats.prompt_tokens, stats.generated_tokens, stats.wall_sec, tokens / stats.wall_sec, stats.num_passes,
      static_cast<double>(lane_bytes(stats, "h2d")) / 1e9);
  if (rates.h2d_bytes_per_sec == 0) {
    fmt::print("  bound            none: the rates of a CPU device are not measured here\n");
    return;
  }
  const offload::WeightSource weights(model.source);
  const policy::RunShape shape =
      policy::make_run_shape(weights.spec(), weights.sizes(), placement, wanted.workload,
                             offload::device_traits(weights, engine.options().device));
  const policy::WorkFloor floor = policy::work_floor(shape, work, rates);
  fmt::print("  rates            h2d {:.1f} and host read {:.1f} GB/s together, products {:.0f} TFLOP/s\n",
             rates.h2d_bytes_per_sec / 1e9, rates.cpu_attention_bytes_per_sec / 1e9, rates.flops / 1e12);
  fmt::print(
      "  bound            {:.2f} s: {} passes' transfers {:.2f} s, CPU attention {:.2f} s, computation "
      "{:.2f} s\n",
      floor.sec(), floor.least_passes, floor.h2d_sec, floor.cpu_sec, floor.gpu_sec);
  const double ratio = floor.sec() / stats.wall_sec;
  fmt::print("  bound over run   {:.1f} %   (must {:.0f} %, aim {:.0f} %: {})\n", 100 * ratio, 100 * kMust,
             100 * kAim,
             ratio >= kAim    ? "aim reached"
             : ratio >= kMust ? "must reached"
                              : "missed");
}

}  // namespace

void add_bench_ragged(CLI::App& bench) {
  const auto options = std::make_shared<BenchRaggedFlags>();
  GenerateConfig& config = options->config;
  config.model.path = "random:opt-30b";
  CLI::App* command = bench.add_subcommand(
      "ragged", "Requests of many lengths that end when they end, against the least time that they can take");
  command->add_option("--model", config.model.path, "As of sluice generate")->capture_default_str();
  command->add_option("--requests", options->requests)->check(CLI::PositiveNumber)->capture_default_str();
  command->add_option("--min-prompt", options->shortest_prompt)
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--max-prompt", options->longest_prompt)
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--max-new-tokens", options->most_new_tokens, "From 1 on")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Of lengths, prompts and draws")->capture_default_str();
  command->add_option("--device", config.compute.device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  command
      ->add_option("--threads", config.compute.threads,
                   "Of the compute pool; 0: all cores, but one beside a GPU")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--gpu-memory", config.memory.gpu, "Budget, for example 16GiB");
  command->add_option("--cpu-memory", config.memory.cpu, "Budget of CPU memory");
  command->add_option("--percent", config.placement.percent, "As of sluice generate; default: chosen")
      ->expected(6);
  command->add_option("--gpu-batch-size", config.placement.gpu_batch_size, "0: chosen, beside --percent 4")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--num-gpu-batches", config.placement.num_gpu_batches, "0: chosen, beside --percent 1")
      ->check(CLI::NonNegativeNumber);
  const auto attends = [&config](bool value) {
    return [&config, value] { config.placement.cpu_cache_compute = value; };
  };
  command
      ->add_flag_callback("--cpu-cache-compute", attends(true),
                          "The CPU attends for decode rows whose KV is off the GPU")
      ->excludes(command->add_flag_callback("--no-cpu-cache-compute", attends(false), "It does not"));
  command->add_option("--hardware", config.compute.hardware, "As of sluice generate");
  command->callback([options] { run_bench(*options); });
}

}  // namespace sluice::apps
