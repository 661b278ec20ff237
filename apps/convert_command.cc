// `sluice convert SOURCE STORE`: a checkpoint becomes a folder that can be streamed.
#include <cstdio>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "apps/commands.h"
#include "apps/convert_progress.h"
#include "apps/interrupt.h"
#include "core/units.h"
#include "kernels/format/convert.h"

namespace sluice::apps {
namespace {

struct Options {
  std::string source, store, config, tokenizer;
  bool force = false;
};

void run(const Options& given) {
  const InterruptScope interrupt;
  ByteProgressLine line("convert");
  kernels::ConvertOptions options;
  options.source.config = given.config;
  options.source.tokenizer = given.tokenizer;
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
  if (summary.resumed_bytes > 0) {
    fmt::print("continued an interrupted conversion: {} were there\n", format_bytes(summary.resumed_bytes));
  }
  fmt::print("read {}, wrote {} in {:.1f} s, {:.2f} GB/s written\n", format_bytes(summary.source_bytes),
             format_bytes(summary.stored_bytes - summary.resumed_bytes), summary.wall_sec,
             written / summary.wall_sec / 1e9);
}

}  // namespace

void add_convert_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("convert", "Turn a checkpoint into a model store that can be streamed");
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
  command->footer(
      "fp16 and bf16 weights keep their type, fp32 becomes fp16; a value that fp16 cannot hold is refused "
      "with its "
      "place.\nAn interrupted conversion continues when the same command is given again.\n\n"
      "Example: sluice convert ~/opt-30b ~/stores/opt-30b");
  command->callback([options] { run(*options); });
}

}  // namespace sluice::apps
