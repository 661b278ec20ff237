// The safetensors container. Fields and checks: CHECKPOINTS.md, "safetensors". Thread-safe.
#pragma once

#include <vector>

#include "core/checkpoint/tensor_record.h"

namespace sluice {

/// Reads and checks the header of `source`. Throws Error{kCorrupt} with file and offset or tensor,
/// Error{kUnsupported} for element types that Sluice does not have.
std::vector<TensorRecord> read_safetensors_header(ByteSource& source);

}  // namespace sluice
