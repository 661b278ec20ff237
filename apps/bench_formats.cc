// `sluice bench formats`: how fast a core encodes dense fp16 weights into each stored format and expands them
// again.
#include <memory>
#include <string>
#include <vector>

#include <CLI/App.hpp>
#include <fmt/format.h>

#include "apps/bench_common.h"
#include "apps/commands.h"
#include "core/error.h"
#include "kernels/bench/bench_matrix.h"
#include "kernels/device/cpu/thread_pool.h"
#include "kernels/format/encode_parallel.h"

namespace sluice::apps {
namespace {

struct BenchFormatsFlags {
  std::int64_t rows = 8192, cols = 7168;
  std::vector<std::string> formats;
  std::vector<double> sparsities = {0.5, 0.7, 0.8, 0.9};
  int threads = 1;
  int rounds = 5;
};

std::vector<Encoding> encodings_of(const std::vector<std::string>& names) {
  std::vector<Encoding> found;
  for (const std::string& name : names) {
    const std::optional<Encoding> encoding = parse_encoding(name);
    SLUICE_CHECK(encoding.has_value(), Code::kInvalidArgument, fmt::format("--formats: '{}'", name),
                 "give formats as `convert --format` takes them");
    found.push_back(*encoding);
  }
  if (found.empty()) found.assign(all_encodings().begin(), all_encodings().end());
  return found;
}

/// One format at one sparsity.
void measure(const BenchFormatsFlags& options, Encoding encoding, double sparsity,
             kernels::ThreadPool& pool) {
  const TensorSpec tensor{"the bench's matrix", 0, options.rows, options.cols, false, SplitRule::kRows};
  const WeightFormat format{encoding, DType::kF16};
  std::vector<std::uint16_t> values(static_cast<std::size_t>(options.rows * options.cols));
  kernels::fill_bench_matrix(sparsity, pool, values);
  const auto dense = std::as_bytes(std::span(values));
  const auto dense_bytes = static_cast<double>(dense.size());
  std::vector<std::byte> stored;
  std::vector<std::uint16_t> expanded(values.size());
  const std::vector<Rates> rates = alternate(
      options.rounds, {[&] {
                         const kernels::EncodedMatrix encoded(tensor, format, DType::kF16, dense, pool);
                         stored.resize(static_cast<std::size_t>(encoded.bytes()));
                         encoded.write(stored, pool);
                         return dense_bytes;
                       },
                       [&] {
                         kernels::expand_matrix({format, stored, options.rows, options.cols}, expanded, pool);
                         return dense_bytes;
                       }});
  SLUICE_CHECK(!is_lossless(encoding) || expanded == values, Code::kInternal,
               fmt::format("{} does not give back what was encoded", encoding_name(encoding)), "");
  const double per_core = 1e9 * options.threads;
  fmt::print("{:<14} {:>8.2f} {:>14.3f}   {:<24} {}\n", encoding_name(encoding), sparsity,
             static_cast<double>(stored.size()) / static_cast<double>(values.size()),
             rates_text(rates[0], per_core), rates_text(rates[1], per_core));
}

void run(const BenchFormatsFlags& options) {
  require_measuring_build();
  const std::vector<Encoding> encodings = encodings_of(options.formats);
  for (const double sparsity : options.sparsities) {
    SLUICE_CHECK(sparsity >= 0 && sparsity < 1, Code::kInvalidArgument,
                 fmt::format("--sparsity: {}", sparsity), "give shares of zeros, such as 0.8");
  }
  kernels::ThreadPool pool(options.threads);
  fmt::print("{}\na matrix of {} x {}; GB/s of dense fp16 per core\n", machine_text(options.threads),
             options.rows, options.cols);
  fmt::print("{:<14} {:>8} {:>14}   {:<24} {}\n", "format", "sparsity", "bytes a weight", "encode", "expand");
  for (const Encoding encoding : encodings) {
    if (has_fixed_size(encoding)) {
      measure(options, encoding, 0, pool);
    } else {
      for (const double sparsity : options.sparsities) measure(options, encoding, sparsity, pool);
    }
  }
}

}  // namespace

void add_bench_formats(CLI::App& bench) {
  auto options = std::make_shared<BenchFormatsFlags>();
  CLI::App* command = bench.add_subcommand(
      "formats", "Encoding and expansion of weights on the CPU, in GB/s of dense fp16 per core");
  command->add_option("--out", options->rows, "Output features")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--in", options->cols, "Input features")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--formats", options->formats, "Stored forms; default all")->delimiter(',');
  command->add_option("--sparsity", options->sparsities, "Shares of zeros")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--threads", options->threads, "Threads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->add_option("--rounds", options->rounds, "Measured rounds; the median is reported")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->callback([options] { run(*options); });
}

}  // namespace sluice::apps
