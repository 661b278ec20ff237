// Reads tensors from a checkpoint in any supported container: safetensors and torch-zip .bin/.pt (single
// or sharded with an index) and .npy folders in FlexGen's naming. Formats and traps: CHECKPOINTS.md.
//
// open_checkpoint parses headers only: memory is about that of the tensor list, whatever the weights' size.
// Not thread-safe; reads are positional, so one reader per thread works. Long reads do not stay in the page
// cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace sluice {

/// A tensor as the container holds it: row-major and contiguous once read.
struct CheckpointTensor {
  std::string name;  ///< as in the container
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::int64_t num_bytes = 0;
  std::filesystem::path file;    ///< as opened: the checkpoint's path and the file's name
  std::int64_t file_offset = 0;  ///< for messages; -1 where the tensor is not one run in the file

  std::int64_t num_elements() const;
};

class CheckpointReader {
 public:
  virtual ~CheckpointReader() = default;
  virtual const std::vector<CheckpointTensor>& tensors() const = 0;
  /// Copies elements [first, first + count) of tensor `index` (row-major order) to `out`, whose size is
  /// count * dtype_bytes. Pieces of a few MiB in rising order are fastest; a strided view of torch.save is
  /// gathered through a window of 16 MiB. Throws Error{kIo, kCorrupt} that names file and offset.
  virtual void read(std::size_t index, std::int64_t first, std::int64_t count, std::span<std::byte> out) = 0;
};

/// Detects the container at `path` (a folder, a single file or an index file). A folder is searched for
/// safetensors, then torch, then .npy; with an index, only the tensors that it places in a file are taken
/// from it. Throws Error: kNotFound if nothing is readable there (says what was looked for; a missing shard
/// with its tensors), kCorrupt with file and offset or tensor, kUnsupported for containers and element types
/// that are known but not read.
std::unique_ptr<CheckpointReader> open_checkpoint(const std::filesystem::path& path);

}  // namespace sluice
