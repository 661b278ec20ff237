// NumPy's .npy container, one tensor a file. Fields and checks: CHECKPOINTS.md, ".npy folder". Thread-safe.
#pragma once

#include <string>

#include "core/checkpoint/tensor_record.h"

namespace sluice {

/// True if `source` begins with the magic of .npy.
bool is_npy(ByteSource& source);

/// Reads and checks the header of `source`, which holds tensor `name`. Throws Error{kCorrupt} with file and
/// offset, Error{kUnsupported} for Fortran order and for element types that Sluice does not have.
TensorRecord read_npy_header(ByteSource& source, const std::string& name);

}  // namespace sluice
