// From what the user gives as --model to a store that can be streamed: a store is taken as it is, a
// checkpoint is converted once and the result reused until the checkpoint changes. Thread-safe; processes
// wait for each other.
#pragma once

#include <filesystem>
#include <functional>
#include <stop_token>

#include "kernels/format/convert.h"

namespace sluice::kernels {

struct ResolveOptions {
  std::filesystem::path store;  ///< where to keep the converted store; empty: see below
  SourceOptions source;
  std::stop_token stop;
  std::function<void(const ConvertProgress&)> progress;
};

struct ResolvedModel {
  std::filesystem::path store;
  bool converted = false;  ///< just now
};

/// A checkpoint folder's store is `<folder>/sluice-store` (of a file `<name>.sluice-store` beside it), with
/// the format and sparsity asked for behind the name unless they are the defaults (`sluice-store-int4`);
/// where that cannot be written, `sluice/<name>-<hash of the path>` in the user's cache folder
/// ($XDG_CACHE_HOME, else ~/.cache). It is remade if the checkpoint's fingerprint, the formats and rules
/// of its matrices, or the store's format version differ. Throws Error{kNotFound} if there is nothing at
/// `model`, {kIo} if no place can be written, and what convert_checkpoint throws.
ResolvedModel resolve_model(const std::filesystem::path& model, const ResolveOptions& options);

}  // namespace sluice::kernels
