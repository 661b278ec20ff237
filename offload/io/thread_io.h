// BlockIo on a pool of threads that call pread and pwrite. See block_io.h.
#pragma once

#include <memory>

#include "offload/io/block_io.h"

namespace sluice::offload {

/// One thread per piece in flight, 32 at most. Throws Error{kIo} where threads cannot be started.
std::unique_ptr<BlockIo> make_thread_io(const BlockIoOptions& options);

}  // namespace sluice::offload
