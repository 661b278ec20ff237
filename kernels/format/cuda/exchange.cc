#include "kernels/format/cuda/exchange.h"

#include "core/error.h"

namespace sluice::kernels::fused {

Exchange exchange_in(const FusedMemory& memory, const FusedMemoryBytes& needed) {
  SLUICE_ASSERT(memory.bytes().cover(needed));
  return {.counters = reinterpret_cast<unsigned*>(memory.counters.data()),
          .sums = reinterpret_cast<float4*>(memory.scratch.data())};
}

}  // namespace sluice::kernels::fused
