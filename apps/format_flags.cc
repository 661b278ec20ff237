#include "apps/format_flags.h"

#include <string_view>
#include <vector>

#include <CLI/App.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/config/config.h"
#include "core/error.h"

namespace sluice::apps {
namespace {

std::string encoding_names() {
  std::vector<std::string_view> names;
  for (const Encoding encoding : all_encodings()) names.push_back(encoding_name(encoding));
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

void add_format_flags(CLI::App& command, FormatFlags& flags) {
  constexpr const char* kGroup = "What the decoder layers' matrices become";
  command.add_option("--format", flags.format, "One of " + encoding_names() + " (default: dense)")
      ->type_name("NAME")
      ->group(kGroup);
  command
      .add_option("--sparsity", flags.sparsity,
                  "Prune to this share of zeros, 0..1: the smallest weights go, those that are zero already "
                  "first (default: nothing is pruned)")
      ->type_name("SHARE")
      ->group(kGroup);
  command
      .add_option("--prune-per", flags.prune_per,
                  "Where the smallest weights are looked for: in each row, in each 128 x 64 tile, or in the "
                  "whole matrix, which then is read twice (default: row)")
      ->type_name("row|tile|matrix")
      ->group(kGroup);
  command.add_flag("--fake", flags.fake, "Random masks instead of the smallest weights: for benchmarks only")
      ->group(kGroup);
  command.add_option("--fake-seed", flags.fake_seed, "Seed of the random masks (default: 0)")
      ->type_name("N")
      ->group(kGroup);
  command
      .add_option(
          "--formats", flags.file,
          "YAML file with these settings (format, sparsity, prune_per, fake, fake_seed, compress) and "
          "overrides, a "
          "list of {layers: 0-3,95, tensors: fc1,fc2, format, sparsity, prune_per}; flags win over it")
      ->type_name("FILE")
      ->group(kGroup);
}

kernels::FormatConfig format_config(const FormatFlags& flags) {
  kernels::FormatConfig config;
  if (!flags.file.empty()) config = load_config<kernels::FormatConfig>(flags.file);
  const auto set = [&](const char* flag, const char* key, const std::string& value) {
    if (!value.empty()) apply_flag(config, flag, key, value);
  };
  set("--format", "format", flags.format);
  set("--sparsity", "sparsity", flags.sparsity);
  set("--prune-per", "prune_per", flags.prune_per);
  set("--fake-seed", "fake_seed", flags.fake_seed);
  config.fake = config.fake || flags.fake;
  validate(config);
  const bool says_how = !flags.prune_per.empty() || !flags.fake_seed.empty();
  SLUICE_CHECK(!says_how || kernels::prunes(config), Code::kInvalidArgument,
               "--prune-per and --fake-seed say how to prune, but nothing is pruned", "give --sparsity too");
  return config;
}

}  // namespace sluice::apps
