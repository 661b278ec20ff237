// How weights lie in CPU memory on a GPU run.
#pragma once

#include <cstdint>

namespace sluice::offload {

/// Whether weights in CPU memory are pinned for fast transfers. Pageable ones are copied into pinned slabs on
/// their way, which takes cores and memory bandwidth from CPU attention; the system may swap them.
enum class HostWeights : std::uint8_t { kPinned, kPageable };

}  // namespace sluice::offload
