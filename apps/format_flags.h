// The flags that say what the matrices of a store become: shared by `convert` and `prune`.
#pragma once

#include <string>

#include "kernels/format/format_rules.h"

namespace CLI {
class App;
}

namespace sluice::apps {

/// What was given; empty: not given.
struct FormatFlags {
  std::string file, format, sparsity, prune_per, fake_seed;
  bool fake = false;
};

/// Adds --formats, --format, --sparsity, --prune-per, --fake and --fake-seed.
void add_format_flags(CLI::App& command, FormatFlags& flags);
/// The file's settings, then the flags'. Throws Error{kInvalidArgument, kNotFound} naming what is wrong.
kernels::FormatConfig format_config(const FormatFlags& flags);

}  // namespace sluice::apps
