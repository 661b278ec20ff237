// `sluice bench generate`: a whole engine with all weights on disk, against the slower of what its bytes cost
// on this disk and what its computation costs alone. How close it comes is how well transfer and computation
// overlap.
#include <algorithm>
#include <chrono>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include <CLI/App.hpp>
#include <fmt/format.h>

#include "apps/bench_common.h"
#include "apps/commands.h"
#include "apps/generate/model.h"
#include "apps/generate/synthetic.h"
#include "apps/interrupt.h"
#include "apps/raw_disk.h"
#include "core/log.h"
#include "core/units.h"
#include "offload/choose_device.h"
#include "offload/engine.h"
#include "offload/io/disk_dir.h"

namespace sluice::apps {
namespace {

using BenchClock = std::chrono::steady_clock;

constexpr double kPassTarget = 1.15;
constexpr std::int64_t kRawMemoryBytes = 256_MiB;

struct BenchGenerateFlags {
  std::string model = "random:opt-1.3b";
  std::int64_t sequences = 8;
  std::int64_t prompt_len = 32;
  std::int64_t gen_len = 5;  // four decode passes a round
  std::int64_t rounds = 7;
  std::int64_t threads = 0;
  std::string device = "cpu";
  std::string disk_dir;
  std::string raw_size = "2GiB";
  std::string trace;
};

/// One engine that is asked the same work in every round.
class Contender {
 public:
  Contender(const OpenedModel& model, const BenchGenerateFlags& options, const policy::Percents& percents,
            const std::string& trace)
      : requests_(synthetic_requests({.prompt_len = options.prompt_len,
                                      .gen_len = options.gen_len,
                                      .num_prompts = options.sequences,
                                      .seed = 1},
                                     model.spec, {})),
        engine_(model.source, nullptr, engine_options(options, percents, trace)) {}

  /// Seconds of a decode pass, over those of one round: from the first token of a request to its last.
  double decode_pass_sec(const std::stop_token& stop) {
    std::vector<BenchClock::time_point> tokens;
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      offload::Request request = requests_[i].request;
      if (i == 0) request.on_token = [&tokens](std::int32_t) { tokens.push_back(BenchClock::now()); };
      engine_.submit(std::move(request));
    }
    engine_.run(stop, [](const offload::Result&) {});
    SLUICE_ASSERT(tokens.size() >= 2);
    const std::chrono::duration<double> total = tokens.back() - tokens.front();
    return total.count() / static_cast<double>(tokens.size() - 1);
  }

  /// Bytes that a pass read from disk, counted at completions, over all passes so far.
  double disk_bytes_per_pass() const {
    const offload::RunStats stats = engine_.stats();
    for (const offload::LaneStats& lane : stats.lanes) {
      if (lane.name == "disk_read") {
        return static_cast<double>(lane.bytes) /
               static_cast<double>(std::max<std::int64_t>(1, stats.num_passes));
      }
    }
    return 0;
  }

 private:
  static offload::EngineOptions engine_options(const BenchGenerateFlags& options,
                                               const policy::Percents& percents, const std::string& trace) {
    offload::EngineOptions result;
    result.placement.percents = percents;
    result.placement.gpu_batch_size = options.sequences;
    result.workload = {.max_prompt_len = options.prompt_len,
                       .max_gen_len = options.gen_len,
                       .max_total_len = options.prompt_len + options.gen_len,
                       .num_requests = options.sequences};
    result.disk_dir = options.disk_dir;
    result.num_threads = static_cast<int>(options.threads);
    result.device = offload::parse_device(options.device);
    result.trace_file = trace;
    return result;
  }

  std::vector<PendingRequest> requests_;
  offload::Engine engine_;
};

/// The disk's own rate, on a file of random bytes in the same folder.
class RawDisk {
 public:
  explicit RawDisk(const BenchGenerateFlags& options)
      : dir_(options.disk_dir),
        path_(dir_.path() / "raw"),
        bytes_(parse_bytes(options.raw_size, "--raw-size") / kRawMemoryBytes * kRawMemoryBytes),
        memory_(kRawMemoryBytes, 1) {
    SLUICE_CHECK(bytes_ > 0, Code::kInvalidArgument,
                 fmt::format("--raw-size {} is too small", options.raw_size),
                 fmt::format("give at least {}", format_bytes(kRawMemoryBytes)));
    memory_.fill_half();
    std::ofstream(path_).close();
    raw_bytes_per_sec(path_, offload::IoOp::kWrite, 0, bytes_, {.num_threads = 4, .block_bytes = 4_MiB},
                      memory_.bytes());
    loop_ =
        best_raw_loop(path_, offload::IoOp::kRead, std::min<std::int64_t>(bytes_, 1_GiB), memory_.bytes());
  }
  double bytes_per_sec() const {
    return raw_bytes_per_sec(path_, offload::IoOp::kRead, 0, bytes_, loop_, memory_.bytes());
  }

 private:
  offload::DiskDir dir_;
  std::filesystem::path path_;
  std::int64_t bytes_;
  WorkingMemory memory_;
  RawLoop loop_;
};

Rates sorted(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {std::move(values)};
}

void run_bench(const BenchGenerateFlags& options) {
  require_measuring_build();
  const InterruptScope interrupt;
  const OpenedModel model = open_model(
      {.path = options.model, .store = {}, .config = {}, .tokenizer = {}, .format = {}}, interrupt.token());
  log_info("measuring the disk");
  const RawDisk disk(options);
  log_info("making the weights, in memory and on disk");
  Contender resident(model, options, policy::parse_percents({100, 0, 100, 0, 100, 0}), {});
  Contender streamed(model, options, policy::parse_percents({0, 0, 100, 0, 100, 0}), options.trace);
  // A round that is not counted: the first run makes the weights.
  resident.decode_pass_sec(interrupt.token());
  streamed.decode_pass_sec(interrupt.token());

  std::vector<double> compute_sec, streamed_sec, disk_rate, ratio;
  for (std::int64_t round = 0; round < options.rounds; ++round) {
    disk_rate.push_back(disk.bytes_per_sec());
    compute_sec.push_back(resident.decode_pass_sec(interrupt.token()));
    streamed_sec.push_back(streamed.decode_pass_sec(interrupt.token()));
    const double bound = std::max(streamed.disk_bytes_per_pass() / disk_rate.back(), compute_sec.back());
    ratio.push_back(streamed_sec.back() / bound);
    log_info("round {} of {}: pass {:.3f} s, compute alone {:.3f} s, disk {:.3f} GB/s, {:.2f} x the bound",
             round + 1, options.rounds, streamed_sec.back(), compute_sec.back(), disk_rate.back() / 1e9,
             ratio.back());
  }

  const int threads = options.threads > 0 ? static_cast<int>(options.threads) : usable_cpus();
  const double bytes = streamed.disk_bytes_per_pass();
  const Rates rates = sorted(disk_rate);
  fmt::print("{}\n{}, {} sequences, all weights on disk, median of {} (lowest to highest)\n",
             machine_text(threads), options.model, options.sequences, options.rounds);
  fmt::print("  decode pass      {} ms\n", rates_text(sorted(streamed_sec), 1e-3));
  fmt::print("  bytes of a pass  {:.3f} GB from disk\n", bytes / 1e9);
  fmt::print("  raw disk         {} GB/s: {:.2f} ms a pass\n", rates_text(rates, 1e9),
             1e3 * bytes / rates.median());
  fmt::print("  compute alone    {} ms a pass\n", rates_text(sorted(compute_sec), 1e-3));
  const double median = sorted(ratio).median();
  fmt::print("  pass over bound  {}   (target {:.2f}: {})\n", rates_text(sorted(ratio), 1), kPassTarget,
             median <= kPassTarget ? "reached" : "missed");
}

}  // namespace

void add_bench_generate(CLI::App& bench) {
  const auto options = std::make_shared<BenchGenerateFlags>();
  CLI::App* command = bench.add_subcommand(
      "generate", "A decode pass with all weights on disk, against the disk alone and the computation alone");
  command->add_option("--model", options->model, "As of sluice generate")->capture_default_str();
  command->add_option("--sequences", options->sequences, "In one GPU batch")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--prompt-len", options->prompt_len)->check(CLI::PositiveNumber)->capture_default_str();
  command->add_option("--gen-len", options->gen_len, "One more than the decode passes of a round")
      ->check(CLI::Range(2, 2048))
      ->capture_default_str();
  command->add_option("--rounds", options->rounds)->check(CLI::Range(1, 1000))->capture_default_str();
  command->add_option("--threads", options->threads, "Of the compute pool; 0: all cores")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--device", options->device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  command->add_option("--disk-dir", options->disk_dir,
                      "Folder of the disk tier (default: the temporary folder)");
  command->add_option("--raw-size", options->raw_size, "Of the file that measures the disk alone")
      ->capture_default_str();
  command->add_option("--trace", options->trace, "Write the timeline, one row per lane, for ui.perfetto.dev");
  command->callback([options] { run_bench(*options); });
  command->footer(
      "The bound is max(bytes of a pass / raw disk rate, a pass with all weights resident). The three are "
      "measured in\n"
      "turn in every round; the ratio is that of the round.");
}

}  // namespace sluice::apps
