// A run's time without playing it: what each lane has to do in the passes of one block, and the larger of
// them. The search ranks placements with it; the best few are simulated. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "policy/play_queue.h"
#include "policy/rates.h"
#include "policy/run_shape.h"
#include "policy/step.h"
#include "policy/step_costs.h"

namespace sluice::policy {

/// Of all requests: their number, and the means of their lengths.
struct RequestMeans {
  std::int64_t count = 0;
  double prompt_len = 0, gen_len = 0;
};
RequestMeans means_of(std::span<const RequestLength> requests);

struct Estimate {
  double total_sec = 0;
  double block_sec = 0;                               ///< of one block alone: what one of its requests takes
  std::array<double, kNumLanes> prefill{}, decode{};  ///< seconds of each lane: a block's prompts; one pass
};

/// Seconds for all requests.
Estimate estimate(const RunShape& shape, const Rates& rates, const ModelProducts& products,
                  const RequestMeans& requests);

}  // namespace sluice::policy
