// `sluice bench linear`: how close a linear layer comes to the machine's read rate with few rows, and to its
// rate of multiply-adds with many.
#include <memory>
#include <string>
#include <vector>

#include <CLI/App.hpp>
#include <fmt/format.h>

#include "apps/bench_common.h"
#include "apps/commands.h"
#include "core/error.h"
#include "core/units.h"
#include "kernels/device/cpu/probe.h"
#include "kernels/ops/linear.h"

namespace sluice::apps {
namespace {

struct BenchLinearFlags {
  std::int64_t in = 4096, out = 16384;
  std::vector<std::int64_t> few_rows = {1, 4, 16}, many_rows = {64, 512};
  int threads = usable_cpus();
  int rounds = 7;
  std::string format = "dense_f16";
  std::string working_set;
};

/// Linear layers of one shape over the weights in `memory`, with inputs of up to `max_rows` rows. Inputs and
/// outputs are aligned and lie in huge pages, as the engine's do.
class Layers {
 public:
  Layers(std::span<const std::byte> memory, const BenchLinearFlags& options, WeightFormat format,
         std::int64_t max_rows)
      : memory_(memory),
        format_(format),
        in_(options.in),
        out_(options.out),
        x_(max_rows * in_ * 4, options.threads),
        y_(max_rows * out_ * 4, options.threads) {
    SLUICE_CHECK(
        num_matrices() > 0, Code::kInvalidArgument,
        fmt::format("a matrix of {} x {} needs {}, the working set is {}", out_, in_,
                    format_bytes(matrix_bytes()), format_bytes(static_cast<std::int64_t>(memory.size()))),
        "raise --working-set or lower --in and --out");
  }
  std::int64_t matrix_bytes() const { return weight_bytes(format_, out_, in_); }
  std::int64_t num_matrices() const { return static_cast<std::int64_t>(memory_.size()) / matrix_bytes(); }
  void run(std::int64_t matrix, std::int64_t rows, kernels::Stream& stream) {
    kernels::linear({.x = {x_.bytes().data(), DType::kF32, rows, in_, in_},
                     .weight = {format_,
                                memory_.subspan(static_cast<std::size_t>(matrix * matrix_bytes()),
                                                static_cast<std::size_t>(matrix_bytes())),
                                out_, in_},
                     .y = {y_.bytes().data(), DType::kF32, rows, out_, out_}},
                    stream);
  }

 private:
  std::span<const std::byte> memory_;
  WeightFormat format_;
  std::int64_t in_, out_;
  WorkingMemory x_, y_;  // x stays zero: the time does not depend on values
};

void run(const BenchLinearFlags& options) {
  require_measuring_build();
  const std::optional<WeightFormat> format = parse_weight_format(options.format);
  SLUICE_CHECK(format.has_value(), Code::kInvalidArgument, fmt::format("--format is '{}'", options.format),
               "give dense_f16 or dense_bf16");
  SLUICE_CHECK(options.in > 0 && options.out > 0 && options.rounds > 0, Code::kInvalidArgument,
               "--in, --out and --rounds must be positive", "");
  std::int64_t max_rows = 1;
  for (const auto* list : {&options.few_rows, &options.many_rows}) {
    for (const std::int64_t rows : *list) {
      SLUICE_CHECK(rows > 0, Code::kInvalidArgument, fmt::format("{} rows", rows),
                   "give positive numbers of rows");
      max_rows = std::max(max_rows, rows);
    }
  }
  kernels::ThreadPool pool(options.threads);
  kernels::Stream stream(pool);
  const WorkingMemory memory(working_set_bytes(options.working_set), options.threads);
  memory.fill_half();
  Layers layers(memory.bytes(), options, *format, max_rows);
  fmt::print("{}\nworking set {}: {} matrices of {} x {}, {}\n", machine_text(options.threads),
             format_bytes(layers.num_matrices() * layers.matrix_bytes()), layers.num_matrices(), options.out,
             options.in, options.format);

  std::vector<std::function<double()>> contenders = {[&] {
    kernels::read_all(memory.bytes(), pool);
    return static_cast<double>(memory.bytes().size());
  }};
  for (const std::int64_t rows : options.few_rows) {
    contenders.emplace_back([&, rows] {
      for (std::int64_t i = 0; i < layers.num_matrices(); ++i) layers.run(i, rows, stream);
      return static_cast<double>(layers.num_matrices() * layers.matrix_bytes());
    });
  }
  const std::vector<Rates> few = alternate(options.rounds, contenders);
  fmt::print("read rate, plain loads       {} GB/s\n", rates_text(few[0], 1e9));
  for (std::size_t i = 0; i < options.few_rows.size(); ++i) {
    fmt::print("linear, {:4} row{}            {} GB/s of weights, {:.1f} % of the read rate\n",
               options.few_rows[i], options.few_rows[i] == 1 ? " " : "s", rates_text(few[i + 1], 1e9),
               100 * few[i + 1].median() / few[0].median());
  }
  if (options.many_rows.empty()) return;

  contenders = {[&] { return kernels::run_multiply_adds(10000, pool); }};
  for (const std::int64_t rows : options.many_rows) {
    contenders.emplace_back([&, rows] {
      layers.run(0, rows, stream);
      return 2.0 * static_cast<double>(rows * options.in * options.out);
    });
  }
  const std::vector<Rates> many = alternate(options.rounds, contenders);
  fmt::print("multiply-adds in registers   {} GFLOP/s\n", rates_text(many[0], 1e9));
  for (std::size_t i = 0; i < options.many_rows.size(); ++i) {
    fmt::print("linear, {:4} rows            {} GFLOP/s, {:.1f} % of them\n", options.many_rows[i],
               rates_text(many[i + 1], 1e9), 100 * many[i + 1].median() / many[0].median());
  }
}

}  // namespace

void add_bench_linear(CLI::App& bench) {
  auto options = std::make_shared<BenchLinearFlags>();
  CLI::App* command =
      bench.add_subcommand("linear", "CPU linear layers against the machine's read rate and multiply-adds");
  command->add_option("--in", options->in, "Input features")->capture_default_str();
  command->add_option("--out", options->out, "Output features")->capture_default_str();
  command->add_option("--format", options->format, "Stored format of the weights")->capture_default_str();
  command->add_option("--few-rows", options->few_rows, "Row counts measured against the read rate")
      ->capture_default_str();
  command->add_option("--many-rows", options->many_rows, "Row counts measured against multiply-adds")
      ->capture_default_str();
  command->add_option("--threads", options->threads, "Threads")->capture_default_str();
  command->add_option("--rounds", options->rounds, "Measured rounds; the median is reported")
      ->capture_default_str();
  command->add_option("--working-set", options->working_set,
                      "Bytes of weights; default 8 x last-level cache, at least 1 GiB");
  command->callback([options] { run(*options); });
}

}  // namespace sluice::apps
