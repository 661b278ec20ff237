#include "offload/io/block_io.h"

#include <atomic>

#include "core/log.h"
#include "offload/io/thread_io.h"
#include "offload/io/uring_io.h"

namespace sluice::offload {

std::unique_ptr<BlockIo> make_block_io(const BlockIoOptions& options) {
  if (!options.allow_uring) return make_thread_io(options);
  try {
    return make_uring_io(options);
  } catch (const Error& e) {
    if (e.code() != Code::kUnsupported) throw;
    static std::atomic<bool> warned{false};
    if (!warned.exchange(true)) log_warn("{}; using a pool of threads for disk I/O instead", e.what());
    return make_thread_io(options);
  }
}

}  // namespace sluice::offload
