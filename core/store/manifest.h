// The model store: a folder that can be streamed as it is. FORMAT.md beside this file gives every field,
// sizes and a worked example. Plain data; thread-safe when const.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/format.h"
#include "core/model/spec.h"

namespace sluice {

inline constexpr const char* kManifestName = "manifest.json";  ///< the file of a store that lists the others

/// Version of the folder's layout; a store with another one is remade or refused.
inline constexpr int kStoreFormatVersion = 4;

/// What a conversion found out about a tensor's values.
struct TensorStats {
  std::int64_t zeros = 0;  ///< elements that are zero, after pruning
  /// ||W' - W|| / ||W|| (Frobenius), W the pruned 16-bit values, W' what the format decodes to.
  double error = 0;

  friend bool operator==(const TensorStats&, const TensorStats&) = default;
};

struct StoredTensor {
  TensorSpec spec;
  WeightFormat format = WeightFormat::kDenseF16;
  std::int32_t file = 0;       ///< index into Manifest::files
  std::int64_t offset = 0;     ///< multiple of kPageAlign
  std::int64_t bytes = 0;      ///< payload; the file is zero-padded to the next multiple of kPageAlign
  std::uint64_t checksum = 0;  ///< XXH3 64 of the payload
  TensorStats stats;

  friend bool operator==(const StoredTensor&, const StoredTensor&) = default;
};

/// Where a store was made from, so that a changed checkpoint is noticed.
struct SourceFingerprint {
  std::string text;  ///< canonical description: sizes, times, header hashes; empty if not recorded
  friend bool operator==(const SourceFingerprint&, const SourceFingerprint&) = default;
};

struct Manifest {
  ModelSpec spec;
  std::vector<std::string> files;            ///< file names, one per unit, relative to the store
  std::vector<StoredTensor> tensors;         ///< in model_tensors order
  std::vector<std::string> tokenizer_files;  ///< copied verbatim into the store
  SourceFingerprint source;

  friend bool operator==(const Manifest&, const Manifest&) = default;
};

/// Reads and validates `<store>/manifest.json`: ranges inside the files, alignment, sizes against formats,
/// the tensor list against the spec. Throws Error{kNotFound, kCorrupt, kUnsupported} naming the field.
Manifest read_manifest(const std::filesystem::path& store);
/// Parses and checks the text alone, without looking at the files (for fuzzing and tests).
Manifest parse_manifest(std::string_view json, const std::string& file_name);
/// The text of manifest.json.
std::string manifest_to_json(const Manifest& manifest);

/// True if `path` is a folder with a manifest.json.
bool is_store(const std::filesystem::path& path);

}  // namespace sluice
