// Whether a request can run: asked at submission, so that nothing fails for it later. Thread-safe.
#pragma once

#include "offload/engine.h"

namespace sluice::offload {

/// What a run can take.
struct RequestLimits {
  const ModelSpec* spec = nullptr;
  const policy::Workload* workload = nullptr;  ///< what the run was planned for
  std::int64_t valid_vocab = 0;                ///< ids below this can be chosen and scored
  bool has_tokenizer = false;
};

/// Throws Error{kInvalidArgument} with the numbers and the remedy.
void check_request(const Request& request, const RequestLimits& limits);

}  // namespace sluice::offload
