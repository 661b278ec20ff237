// `sluice convert SOURCE STORE`: a checkpoint becomes a folder that can be streamed. `sluice prune` is the
// same with a sparsity that must be given.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>

#include <CLI/App.hpp>
#include <fmt/format.h>

#include "apps/commands.h"
#include "apps/convert_progress.h"
#include "apps/format_flags.h"
#include "apps/interrupt.h"
#include "core/error.h"
#include "core/units.h"
#include "kernels/format/convert.h"

namespace sluice::apps {
namespace {

struct ConvertFlags {
  std::string source, store, config, tokenizer;
  FormatFlags formats;
  bool force = false;
  bool must_prune = false;
};

/// "80.0 % zeros, 0.53 bytes a weight", of what the flags are about.
std::string matrices_text(const Manifest& manifest) {
  std::int64_t elements = 0, zeros = 0, bytes = 0;
  for (const StoredTensor& tensor : manifest.tensors) {
    if (!kernels::can_be_encoded(tensor.spec)) continue;
    elements += tensor.spec.rows * tensor.spec.cols;
    zeros += tensor.stats.zeros;
    bytes += tensor.bytes;
  }
  const auto count = static_cast<double>(std::max<std::int64_t>(1, elements));
  return fmt::format("{:.1f} % zeros, {:.3f} bytes a weight", 100.0 * static_cast<double>(zeros) / count,
                     static_cast<double>(bytes) / count);
}

void run(const ConvertFlags& given) {
  const InterruptScope interrupt;
  ByteProgressLine line("convert");
  kernels::ConvertOptions options;
  options.source.config = given.config;
  options.source.tokenizer = given.tokenizer;
  options.source.formats = format_config(given.formats);
  SLUICE_CHECK(!given.must_prune || kernels::prunes(options.source.formats), Code::kInvalidArgument,
               "prune: no sparsity is given", "give --sparsity SHARE, or a --formats FILE with one");
  options.existing = given.force ? ExistingStore::kReplace : ExistingStore::kRefuse;
  options.stop = interrupt.token();
  options.progress = [&](const kernels::ConvertProgress& progress) {
    line.show(progress.done_bytes, progress.total_bytes, progress.bytes_per_sec);
  };
  const kernels::ConvertSummary summary = kernels::convert_checkpoint(given.source, given.store, options);
  const double written = static_cast<double>(summary.stored_bytes - summary.resumed_bytes);
  fmt::print("{}: {} tensors, {} of weights ({}), {}\n", given.store, summary.manifest.tensors.size(),
             format_bytes(summary.stored_bytes), dtype_name(summary.manifest.spec.weight_dtype),
             summary.manifest.tokenizer_files.empty() ? "no tokenizer" : "with tokenizer");
  fmt::print("matrices of the decoder layers: {}\n", matrices_text(summary.manifest));
  if (summary.resumed_bytes > 0) {
    fmt::print("continued an interrupted conversion: {} were there\n", format_bytes(summary.resumed_bytes));
  }
  fmt::print("read {}, wrote {} in {:.1f} s, {:.2f} GB/s written\n", format_bytes(summary.source_bytes),
             format_bytes(summary.stored_bytes - summary.resumed_bytes), summary.wall_sec,
             written / summary.wall_sec / 1e9);
}

CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& description,
                      const std::shared_ptr<ConvertFlags>& options) {
  CLI::App* command = app.add_subcommand(name, description);
  command
      ->add_option(
          "SOURCE", options->source,
          "Hugging Face folder (safetensors or pytorch_model.bin, sharded or not), a single weights file, "
          "or a folder of .npy files as FlexGen writes them")
      ->required();
  command->add_option("STORE", options->store, "Folder to make; missing parents are made too")->required();
  command->add_option("--config", options->config, "config.json of the model, if SOURCE has none")
      ->type_name("FILE");
  command
      ->add_option("--tokenizer", options->tokenizer, "Folder with the tokenizer's files, if SOURCE has none")
      ->type_name("DIR");
  command->add_flag("--force", options->force, "Replace STORE if it is a store already");
  add_format_flags(*command, options->formats);
  command->callback([options] { run(*options); });
  return command;
}

}  // namespace

void add_convert_command(CLI::App& app) {
  CLI::App* command = add_command(app, "convert", "Turn a checkpoint into a model store that can be streamed",
                                  std::make_shared<ConvertFlags>());
  command->footer(
      "fp16 and bf16 weights keep their type, fp32 becomes fp16; a value that fp16 cannot hold is refused "
      "with its "
      "place.\nAn interrupted conversion continues when the same command is given again.\n\n"
      "Example: sluice convert ~/opt-30b ~/stores/opt-30b\n"
      "         sluice convert ~/opt-30b-sparse80 ~/stores/opt-30b-s80 --format bitmap");
}

void add_prune_command(CLI::App& app) {
  const auto options = std::make_shared<ConvertFlags>();
  CLI::App* command =
      add_command(app, "prune", "Turn a checkpoint into a store whose smallest weights are zero", options);
  options->must_prune = true;
  command->footer(
      "The weights are pruned by magnitude and not trained afterwards: at 50 % a large model keeps most of "
      "its "
      "quality, at\n80 % it does not, unless it was fine-tuned with those zeros.\n\n"
      "Example: sluice prune ~/opt-30b ~/stores/opt-30b-s50 --sparsity 0.5 --format bitmap");
}

}  // namespace sluice::apps
