// Which rows of a GPU batch the GPU attends, and which the CPU. Pure.
#pragma once

#include <cstdint>

#include "policy/pass.h"

namespace sluice::offload::detail {

/// Calls visit(segment) for the batch's segments on one side.
template <class Visit>
void for_side(const policy::Pass& pass, const policy::BatchPass& batch, bool on_cpu, Visit visit) {
  for (std::int32_t i = 0; i < batch.num_segments; ++i) {
    const policy::Segment& segment = pass.segments[static_cast<std::size_t>(batch.first_segment + i)];
    if (segment.on_cpu == on_cpu) visit(segment);
  }
}

}  // namespace sluice::offload::detail
