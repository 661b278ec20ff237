// `sluice bench attention`: how close CPU decode attention comes to the machine's read rate, and prefill
// attention to its rate of multiply-adds.
#include <memory>
#include <string>
#include <vector>

#include <CLI/App.hpp>
#include <fmt/format.h>

#include "apps/attention_batch.h"
#include "apps/bench_common.h"
#include "apps/commands.h"
#include "core/error.h"
#include "core/kv_page.h"
#include "core/units.h"
#include "kernels/device/cpu/probe.h"

namespace sluice::apps {
namespace {

struct BenchAttentionFlags {
  std::int64_t heads = 32, head_dim = 128, positions = 544, sequences = 32, prefill = 1024;
  std::vector<std::int64_t> groups = {1, 4};
  int threads = usable_cpus();
  int rounds = 7;
  std::string kv_format = "fp16";
  std::string working_set;
};

/// A batch over `memory` with q and out of its own.
class Batch {
 public:
  Batch(std::span<std::byte> memory, const BenchAttentionFlags& options, std::int64_t group, KvFormat format,
        std::int64_t positions, std::int64_t rows_each, std::int64_t max_sequences)
      : layout_{options.heads / group, options.head_dim, format},
        batch_({.pages = memory,
                .layout = layout_,
                .num_heads = options.heads,
                .positions = positions,
                .rows_each = rows_each,
                .max_sequences = max_sequences}),
        q_(static_cast<std::size_t>(batch_.num_rows() * options.heads * options.head_dim), 0.1F),
        out_(q_.size()) {}

  void run(kernels::Stream& stream) { batch_.run(q(), out(), DType::kF32, stream); }
  void run_steps(std::int64_t sequences, kernels::Stream& stream) {
    batch_.run_steps(sequences, q(), q(), out(), DType::kF32, stream);
  }
  std::int64_t num_sequences() const { return batch_.num_sequences(); }
  double kv_bytes() const { return batch_.kv_bytes(); }
  double causal_flops() const { return batch_.causal_flops(); }
  const KvLayout& layout() const { return layout_; }

 private:
  const std::byte* q() const { return reinterpret_cast<const std::byte*>(q_.data()); }
  std::byte* out() { return reinterpret_cast<std::byte*>(out_.data()); }

  KvLayout layout_;
  AttentionBatch batch_;
  std::vector<float> q_, out_;
};

void run(const BenchAttentionFlags& options) {
  require_measuring_build();
  const std::optional<KvFormat> format = parse_kv_format(options.kv_format);
  SLUICE_CHECK(format.has_value(), Code::kInvalidArgument,
               fmt::format("--kv-format is '{}'", options.kv_format), "give fp32 or fp16");
  SLUICE_CHECK(options.rounds > 0 && options.heads > 0 && options.positions > 0 && options.sequences > 0,
               Code::kInvalidArgument, "--rounds, --heads, --positions and --sequences must be positive", "");
  kernels::ThreadPool pool(options.threads);
  kernels::Stream stream(pool);
  const WorkingMemory memory(working_set_bytes(options.working_set), options.threads);
  memory.fill_half();
  fmt::print("{}\nworking set {}\n", machine_text(options.threads),
             format_bytes(static_cast<std::int64_t>(memory.bytes().size())));

  std::vector<std::unique_ptr<Batch>> batches;
  std::vector<std::function<double()>> contenders = {[&] {
    kernels::read_all(memory.bytes(), pool);
    return static_cast<double>(memory.bytes().size());
  }};
  for (const std::int64_t group : options.groups) {
    SLUICE_CHECK(group > 0 && options.heads % group == 0, Code::kInvalidArgument,
                 fmt::format("{} heads do not divide into groups of {}", options.heads, group),
                 "change --group");
    Batch& batch = *batches.emplace_back(
        std::make_unique<Batch>(memory.bytes(), options, group, *format, options.positions, 1, INT64_MAX));
    contenders.emplace_back([&] {
      batch.run_steps(options.sequences, stream);
      return batch.kv_bytes();
    });
  }
  const std::vector<Rates> rates = alternate(options.rounds, contenders);
  fmt::print("read rate, plain loads       {} GB/s\n", rates_text(rates[0], 1e9));
  for (std::size_t i = 0; i < batches.size(); ++i) {
    const Batch& batch = *batches[i];
    fmt::print(
        "decode attention             {} GB/s, {:.1f} % of the read rate: {} {} KV heads of {}, {} queries "
        "each, {} sequences of {}, {} a step\n",
        rates_text(rates[i + 1], 1e9), 100 * rates[i + 1].median() / rates[0].median(), options.kv_format,
        batch.layout().num_kv_heads, options.head_dim, options.groups[i], batch.num_sequences(),
        options.positions, options.sequences);
  }
  if (options.prefill <= 0) return;

  Batch prompt(memory.bytes(), options, options.groups.front(), *format, options.prefill, options.prefill, 1);
  const std::vector<Rates> compute =
      alternate(options.rounds, {[&] { return kernels::run_multiply_adds(2000, pool); },
                                 [&] {
                                   prompt.run(stream);
                                   return prompt.causal_flops();
                                 }});
  fmt::print("multiply-adds in registers   {} GFLOP/s\n", rates_text(compute[0], 1e9));
  fmt::print("prefill attention            {} GFLOP/s, {:.1f} % of them: one prompt of {}\n",
             rates_text(compute[1], 1e9), 100 * compute[1].median() / compute[0].median(), options.prefill);
}

}  // namespace

void add_bench_attention(CLI::App& bench) {
  auto options = std::make_shared<BenchAttentionFlags>();
  CLI::App* command =
      bench.add_subcommand("attention", "CPU attention over paged KV against the machine's read rate");
  command->add_option("--heads", options->heads, "Query heads")->capture_default_str();
  command->add_option("--group", options->groups, "Queries per KV head; may be repeated")
      ->capture_default_str();
  command->add_option("--head-dim", options->head_dim, "Elements of a head")->capture_default_str();
  command->add_option("--positions", options->positions, "KV length of each sequence in decode")
      ->capture_default_str();
  command
      ->add_option(
          "--sequences", options->sequences,
          "Sequences of a step, as many as a GPU batch has: their K and V are written, then they attend")
      ->capture_default_str();
  command->add_option("--prefill", options->prefill, "Length of the prompt in prefill, 0 to leave it out")
      ->capture_default_str();
  command->add_option("--kv-format", options->kv_format, "fp16 or fp32")->capture_default_str();
  command->add_option("--threads", options->threads, "Threads")->capture_default_str();
  command->add_option("--rounds", options->rounds, "Measured rounds; the median is reported")
      ->capture_default_str();
  command->add_option("--working-set", options->working_set,
                      "Bytes of KV; default 8 x last-level cache, at least 1 GiB");
  command->callback([options] { run(*options); });
}

}  // namespace sluice::apps
