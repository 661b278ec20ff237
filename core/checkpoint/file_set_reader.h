// The one CheckpointReader behind every container: a list of records over one or many files.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/checkpoint/tensor_record.h"

namespace sluice {

/// The tensors of one file and the size that the file had when its header was read.
struct ContainerFile {
  std::string path;
  std::int64_t bytes = 0;
  std::vector<TensorRecord> records;
};

/// Throws Error{kCorrupt} if two files hold a tensor of the same name.
std::unique_ptr<CheckpointReader> make_file_set_reader(std::vector<ContainerFile> files);

}  // namespace sluice
