// From --model to what the engine loads. One thread.
#pragma once

#include <memory>
#include <stop_token>
#include <string>

#include "apps/generate/config.h"
#include "core/model/spec.h"
#include "core/tokenizer/tokenizer.h"
#include "offload/engine.h"

namespace sluice::apps {

struct OpenedModel {
  offload::ModelSource source;
  ModelSpec spec;
  std::unique_ptr<Tokenizer> tokenizer;  ///< null if the model has none and none is given
  std::string fingerprint;               ///< changes with weights, spec and tokenizer
};

/// A store is taken as it is, a checkpoint converted where it has no store yet (with progress on stderr), and
/// random:NAME[:SEED] made of a built-in spec. Throws Error{kNotFound, kInvalidArgument, kCorrupt, ...}
/// naming the path, and Error{kCancelled} if `stop` is asked for during a conversion.
OpenedModel open_model(const ModelConfig& config, std::stop_token stop);

/// "random:opt-30b:7" into name and seed (0 if absent). Throws Error{kInvalidArgument}. Empty name if `path`
/// does not begin with "random:".
struct RandomModelName {
  std::string name;
  std::uint64_t seed = 0;
};
RandomModelName parse_random_model(const std::string& path);

}  // namespace sluice::apps
