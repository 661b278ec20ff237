// Everything that `convert` takes from a checkpoint: its tensors matched with the model's, the spec, the
// tokenizer files, and the fingerprint by which a change is noticed. Opening reads headers, and with
// FormatConfig::compress a few rows of each matrix. Thread-safe
// when const.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "core/checkpoint/reader.h"
#include "core/store/manifest.h"
#include "core/store/store_writer.h"
#include "kernels/format/format_rules.h"

namespace sluice::kernels {

/// What the user gives beside the checkpoint.
struct SourceOptions {
  std::filesystem::path config;     ///< a config.json; empty: the one beside the weights
  std::filesystem::path tokenizer;  ///< a folder; empty: the one of the weights
  FormatConfig formats;             ///< what the matrices become
};

struct CheckpointSource {
  std::filesystem::path path;             ///< what open_checkpoint takes
  std::vector<CheckpointTensor> tensors;  ///< one per entry of model_tensors(plan.spec)
  std::vector<std::size_t> indexes;       ///< of `tensors` in the reader
  std::filesystem::path config;
  std::vector<std::filesystem::path> tokenizer_files;
  std::vector<PruneRule> prune;   ///< as `tensors`
  SourceFingerprint fingerprint;  ///< of the files alone; plan.source says what is done with them too
  StorePlan plan;
};

/// Throws Error{kNotFound} if `path`, the config or a given tokenizer does not exist, and what the readers
/// throw.
CheckpointSource open_source(const std::filesystem::path& path, const SourceOptions& options);

/// Throws Error{kCorrupt} if the files behind `source` are no longer those that were opened.
void check_unchanged(const CheckpointSource& source);

/// The files that make a tokenizer, as far as `folder` has them.
std::vector<std::filesystem::path> tokenizer_files_in(const std::filesystem::path& folder);

}  // namespace sluice::kernels
