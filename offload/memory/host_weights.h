// How weights lie in CPU memory on a GPU run.
#pragma once

#include <cstdint>

namespace sluice::offload {

/// Whether weights in CPU memory are pinned for fast transfers. Pageable ones reach the GPU through the
/// driver's own slabs, several times slower; they need no right to lock memory, and the system may swap them.
enum class HostWeights : std::uint8_t { kPinned, kPageable };

}  // namespace sluice::offload
