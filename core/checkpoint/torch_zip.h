// Files of torch.save: the zip container of PyTorch 1.6 and later. Fields and checks: CHECKPOINTS.md,
// "torch zip". Thread-safe.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/checkpoint/tensor_record.h"
#include "core/checkpoint/zip_archive.h"

namespace sluice {

/// Reads and checks the header of `source`: the directory and data.pkl. Throws Error{kCorrupt} with file
/// and offset or tensor, Error{kUnsupported} for older containers, TorchScript and big-endian data.
std::vector<TensorRecord> read_torch_header(ByteSource& source);

/// Where the storage with this key lies. Throws if there is none.
using FindStorage = std::function<ZipData(const std::string& key)>;

/// The tensors of a state dict, pickled in `bytes` bytes from `offset`; the pickle half of read_torch_header.
std::vector<TensorRecord> read_state_dict(ByteSource& source, std::int64_t offset, std::int64_t bytes,
                                          const FindStorage& find_storage);

/// True if `source` looks like a file of torch.save in any of its containers.
bool is_torch(ByteSource& source);

}  // namespace sluice
