// `sluice bench spmm`: products of few rows over weights in every stored form, against the libraries that
// users have, shape by shape, and their geometric means.
#include "apps/bench_spmm.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <memory>
#include <optional>

#include <CLI/App.hpp>
#include <fmt/format.h>

#include "apps/bench_common.h"
#include "apps/commands.h"
#include "apps/spmm_report.h"
#include "core/config/model_config.h"
#include "core/error.h"
#include "kernels/device/cpu/thread_pool.h"
#include "offload/choose_device.h"

namespace sluice::apps {
namespace {

using kernels::SpmmBench;
using kernels::SpmmShape;

// Eight matrices of OPT-30B and OPT-175B (q, k and v as one; the square ones are the out projections).
const std::vector<std::string> kShapes = {"7168x7168",  "7168x28672", "12288x12288", "12288x49152",
                                          "21504x7168", "28672x7168", "36864x12288", "49152x12288"};
// One of each kind; the others differ in their groups.
constexpr std::array kEncodings = {Encoding::kTiledCsl,   Encoding::kBankCsl,   Encoding::kPairs24,
                                   Encoding::kBitmap,     Encoding::kInt8,      Encoding::kInt4G64,
                                   Encoding::kBitmapInt8, Encoding::kBitmapInt4};
const std::vector<std::string> kQuickShapes = {"7168x7168", "28672x7168"};
constexpr std::int64_t kMaxRows = 4096;

bool parse_number(std::string_view text, std::int64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value > 0;
}

void add_model_shapes(const ModelSpec& spec, std::vector<SpmmShape>& shapes) {
  const std::int64_t h = spec.hidden_dim;
  for (const SpmmShape& shape : {SpmmShape{3 * h, h}, {h, h}, {spec.ffn_dim, h}, {h, spec.ffn_dim}}) {
    if (std::ranges::find(shapes, shape) == shapes.end()) shapes.push_back(shape);
  }
}

/// "7168x28672", "opt-30b", or "opt" for all OPT models.
void add_shapes(const std::string& text, std::vector<SpmmShape>& shapes) {
  const std::size_t cross = text.find('x');
  SpmmShape shape;
  if (cross != text.npos && parse_number(std::string_view(text).substr(0, cross), shape.rows) &&
      parse_number(std::string_view(text).substr(cross + 1), shape.cols)) {
    if (std::ranges::find(shapes, shape) == shapes.end()) shapes.push_back(shape);
    return;
  }
  bool any = false;
  for (const std::string& name : builtin_model_names()) {
    if (name != text && !(text == "opt" && name.starts_with("opt-"))) continue;
    add_model_shapes(*find_builtin_model(name), shapes);
    any = true;
  }
  SLUICE_CHECK(any, Code::kInvalidArgument, fmt::format("--shapes: '{}' is no shape and no model", text),
               "write 28672x7168 (output x input features), opt-30b, or opt for all OPT models");
}

/// One run over the plan.
class SpmmRun {
 public:
  SpmmRun(SpmmBench& bench, const SpmmPlan& plan, const SpmmOptions& options)
      : bench_(bench), plan_(plan), options_(options), rates_(bench.measure_rates()) {
    if (!options.csv.empty()) {
      csv_.open(options.csv);
      SLUICE_CHECK(csv_.good(), Code::kIo, fmt::format("--csv {} cannot be written", options.csv),
                   "give a file in a folder that exists");
      csv_ << csv_head();
    }
  }

  void run() {
    fmt::print("device copy {:.0f} GB/s, read plus written; fp16 product of 8192 cubed {:.0f} TFLOP/s\n\n",
               rates_.copy_bytes_per_sec * 1e-9, rates_.product_flops_per_sec * 1e-12);
    if (!options_.summary_only) fmt::print("{}", table_head());
    for (const SpmmShape& shape : plan_.shapes) {
      shape_ = shape;
      dense_sec_.clear();
      sparsity_ = 0;
      bench_.set_matrix(shape, 0);
      dense_peers();
      for (const Encoding encoding : plan_.quantised) encoded(encoding);
      for (const double sparsity : plan_.sparsities) {
        sparsity_ = sparsity;
        bench_.set_matrix(shape, sparsity);
        for (const Encoding encoding : plan_.sparse) encoded(encoding);
        if (!plan_.cusparse_rows.empty()) csr();
      }
    }
    fmt::print("{}", summary(rows_, rates_));
    finish();
  }

 private:
  SpmmRow row(std::int64_t n, std::string format, std::string product, SpmmKind kind) const {
    SpmmRow row;
    row.shape = shape_;
    row.n = n;
    row.sparsity = sparsity_;
    row.format = std::move(format);
    row.product = std::move(product);
    row.kind = kind;
    row.stored_bytes = bench_.stored_bytes();
    return row;
  }

  void dense_peers() {
    for (const std::int64_t n : plan_.rows) {
      std::vector<SpmmRow> peers;
      for (const std::string& product : bench_.products()) {
        peers.push_back(row(n, "dense", product, SpmmKind::kPeer));
        peers.back().timing = bench_.time_product(product, n);
      }
      double best = 0;
      for (const SpmmRow& peer : peers) {
        if (peer.measured() && (best == 0 || peer.timing.sec < best)) best = peer.timing.sec;
      }
      dense_sec_.push_back(best);
      for (SpmmRow& peer : peers) add(std::move(peer), best);
    }
  }

  void encoded(Encoding encoding) {
    bench_.set_encoding(encoding);
    const std::string format(encoding_name(encoding));
    for (const auto& [name, expansion] : {std::pair{"expand", SpmmBench::Expansion::kWhole},
                                          std::pair{"expand_sliced", SpmmBench::Expansion::kSliced}}) {
      SpmmRow expanded = row(0, format, name, SpmmKind::kExpansion);
      expanded.timing = bench_.time_expansion(expansion);
      add(std::move(expanded), 0);
    }
    for (const std::string& product : bench_.products()) {
      if (!wanted(product)) continue;
      const SpmmKind kind =
          product.starts_with("expand") || product == "linear" ? SpmmKind::kExpandProduct : SpmmKind::kFused;
      for (std::size_t i = 0; i < plan_.rows.size(); ++i) {
        SpmmRow measured = row(plan_.rows[i], format, product, kind);
        measured.lossless = is_lossless(encoding);
        measured.timing = bench_.time_product(product, plan_.rows[i]);
        add(std::move(measured), dense_sec_[i]);
      }
    }
  }

  /// `linear` is one of the others, so it is measured when asked for.
  bool wanted(const std::string& product) const {
    if (options_.products.empty()) return product != "linear";
    return std::ranges::find(options_.products, product) != options_.products.end();
  }

  void csr() {
    bench_.set_csr();
    for (std::size_t i = 0; i < plan_.rows.size(); ++i) {
      if (std::ranges::find(plan_.cusparse_rows, plan_.rows[i]) == plan_.cusparse_rows.end()) continue;
      SpmmRow measured = row(plan_.rows[i], "csr", "cusparse", SpmmKind::kPeer);
      measured.timing = bench_.time_product("cusparse", plan_.rows[i]);
      add(std::move(measured), dense_sec_[i]);
    }
  }

  void add(SpmmRow added, double dense_sec) {
    if (added.measured() && dense_sec > 0) added.speedup = dense_sec / added.timing.sec;
    if (!options_.summary_only) {
      fmt::print("{}", table_line(added, rates_));
      std::fflush(stdout);
    }
    if (csv_.is_open()) csv_ << csv_line(added, rates_) << std::flush;
    rows_.push_back(std::move(added));
  }

  /// Throws if a result was wrong, or the file is incomplete.
  void finish() {
    SLUICE_CHECK(!csv_.is_open() || csv_.good(), Code::kIo,
                 fmt::format("--csv {} could not be written to its end", options_.csv),
                 "make room on its disk");
    // cuSPARSE rounds as it likes; its lines show how much.
    const auto wrong = std::ranges::count_if(
        rows_, [](const SpmmRow& row) { return row.measured() && !row.right() && row.format != "csr"; });
    SLUICE_CHECK(wrong == 0, Code::kInternal,
                 fmt::format("{} of {} results differ from the fp32 product by more than rounding", wrong,
                             rows_.size()),
                 "see the lines marked WRONG");
  }

  SpmmBench& bench_;
  const SpmmPlan& plan_;
  const SpmmOptions& options_;
  const kernels::SpmmDeviceRates rates_;
  std::ofstream csv_;
  std::vector<SpmmRow> rows_;
  // of the matrix
  SpmmShape shape_;
  double sparsity_ = 0;
  std::vector<double> dense_sec_;  // of the better peer, as plan_.rows
};

void run(const SpmmOptions& options) {
  const SpmmPlan plan = plan_spmm(options);
  kernels::ThreadPool pool(options.threads);
  const std::unique_ptr<kernels::Device> device =
      offload::make_device(offload::parse_device(options.device), pool);
  const std::unique_ptr<SpmmBench> bench =
      kernels::make_spmm_bench(*device, pool, {.max_rows = plan.rows.back(), .samples = plan.samples});
  require_measuring_build();
  fmt::print("{}; {}\n", device->description(), bench->libraries());
  SpmmRun(*bench, plan, options).run();
}

}  // namespace

SpmmPlan plan_spmm(const SpmmOptions& options) {
  SpmmPlan plan;
  plan.samples = options.samples != 0 ? options.samples : options.quick ? 5 : 11;
  for (const std::string& text : !options.shapes.empty() ? options.shapes
                                 : options.quick         ? kQuickShapes
                                                         : kShapes)
    add_shapes(text, plan.shapes);

  plan.rows = options.rows;
  if (plan.rows.empty()) {
    plan.rows = options.quick ? std::vector<std::int64_t>{16, 64}
                              : std::vector<std::int64_t>{8, 16, 32, 64, 128, 256, 512};
  }
  for (const std::int64_t n : plan.rows) {
    SLUICE_CHECK(n > 0 && n <= kMaxRows, Code::kInvalidArgument, fmt::format("--rows: {}", n),
                 fmt::format("give numbers from 1 to {}", kMaxRows));
  }
  std::ranges::sort(plan.rows);
  plan.rows.erase(std::unique(plan.rows.begin(), plan.rows.end()), plan.rows.end());
  for (const std::int64_t n : plan.rows) {
    if (std::ranges::find(options.cusparse_rows, n) != options.cusparse_rows.end())
      plan.cusparse_rows.push_back(n);
  }

  plan.sparsities = options.sparsities;
  if (plan.sparsities.empty()) {
    plan.sparsities =
        options.quick ? std::vector<double>{0.7, 0.9} : std::vector<double>{0.5, 0.6, 0.7, 0.8, 0.9};
  }
  for (const double sparsity : plan.sparsities) {
    SLUICE_CHECK(sparsity >= 0 && sparsity < 1, Code::kInvalidArgument,
                 fmt::format("--sparsity: {}", sparsity), "give shares of zeros, such as 0.8");
  }
  std::ranges::sort(plan.sparsities);

  std::vector<Encoding> encodings;
  for (const std::string& name : options.formats) {
    if (name == "all") {
      const auto every = all_encodings().subspan(1);  // dense is the first
      encodings.insert(encodings.end(), every.begin(), every.end());
      continue;
    }
    const std::optional<Encoding> encoding = parse_encoding(name);
    SLUICE_CHECK(encoding && *encoding != Encoding::kDense, Code::kInvalidArgument,
                 fmt::format("--formats: '{}'", name),
                 "give encoded formats, such as tiled_csl and int4_g64");
    encodings.push_back(*encoding);
  }
  if (encodings.empty()) encodings.assign(kEncodings.begin(), kEncodings.end());
  for (const Encoding encoding : encodings)
    (has_fixed_size(encoding) ? plan.quantised : plan.sparse).push_back(encoding);
  return plan;
}

void add_bench_spmm(CLI::App& bench) {
  auto options = std::make_shared<SpmmOptions>();
  options->threads = usable_cpus();
  options->cusparse_rows = {16};
  CLI::App* command = bench.add_subcommand(
      "spmm", "Products over sparse and quantised weights on a GPU, against cuBLAS, cuBLASLt and cuSPARSE");
  command->add_option("--device", options->device, "cuda or cuda:N")->capture_default_str();
  command
      ->add_option(
          "--shapes", options->shapes,
          "Output x input features (28672x7168), a model (opt-30b: its four matrices) or opt for all "
          "OPT models; default eight matrices of OPT-30B and OPT-175B")
      ->delimiter(',');
  command->add_option("--rows", options->rows, "Rows of x; default 8,16,32,64,128,256,512")->delimiter(',');
  command->add_option("--sparsity", options->sparsities, "Shares of zeros; default 0.5,0.6,0.7,0.8,0.9")
      ->delimiter(',');
  command->add_option("--formats", options->formats, "Stored forms; default one of each kind; all for all")
      ->delimiter(',');
  command
      ->add_option("--cusparse-rows", options->cusparse_rows, "Those of --rows that cuSPARSE is measured at")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--threads", options->threads, "Threads that encode")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->add_option("--samples", options->samples, "Most samples of a measurement; default 11")
      ->check(CLI::Range(3, 1000));
  command->add_option("--csv", options->csv, "Write every measurement to this file");
  command->add_flag("--quick", options->quick,
                    "Two shapes, N 16 and 64, sparsity 0.7 and 0.9, 5 samples, where nothing else is given");
  command->add_flag("--summary", options->summary_only, "Print the geometric means only");
  command->callback([options] { run(*options); });
}

}  // namespace sluice::apps
