// The synthetic benchmark's prompts. Pure, thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "apps/generate/requests.h"

namespace sluice::apps {

struct SyntheticWork {
  std::int64_t prompt_len = 512;
  std::int64_t gen_len = 32;
  std::int64_t num_prompts = 1;
  std::uint64_t seed = 0;
};

/// Random prompts, all different (FlexGen repeats one), of tokens that are not special; every request
/// generates exactly gen_len tokens. Throws Error{kInvalidArgument} if the lengths do not fit the context or
/// if there are not that many different prompts.
std::vector<PendingRequest> synthetic_requests(const SyntheticWork& work, const ModelSpec& spec,
                                               const offload::Request& defaults);

}  // namespace sluice::apps
