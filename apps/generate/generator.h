// What the run loop needs of an engine, so that it can be tested on a scripted one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>

#include "offload/engine.h"

namespace sluice::apps {

class Generator {
 public:
  virtual ~Generator() = default;
  /// As offload::Engine's functions of the same names.
  virtual std::int64_t submit(offload::Request request) = 0;
  virtual void run(std::stop_token stop, const std::function<void(offload::Result)>& on_result) = 0;
  /// From the thread of run(), between its calls of on_token and on_result too.
  virtual offload::RunStats stats() const = 0;
  /// As the engine filled them in; null where there is none.
  virtual const offload::EngineOptions* options() const { return nullptr; }
};

/// For a run in which nothing is left to do: no model is loaded.
std::unique_ptr<Generator> make_idle_generator();

/// The real one. Throws what the constructor of offload::Engine throws.
std::unique_ptr<Generator> make_engine_generator(const offload::ModelSource& source,
                                                 const Tokenizer* tokenizer,
                                                 const offload::EngineOptions& options);

}  // namespace sluice::apps
