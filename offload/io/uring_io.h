// BlockIo on io_uring. See block_io.h.
#pragma once

#include <memory>

#include "offload/io/block_io.h"

namespace sluice::offload {

/// Throws Error{kUnsupported} with the reason where this kernel, its settings or a sandbox forbid io_uring.
std::unique_ptr<BlockIo> make_uring_io(const BlockIoOptions& options);

}  // namespace sluice::offload
