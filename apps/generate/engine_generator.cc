#include "apps/generate/generator.h"

namespace sluice::apps {
namespace {

class EngineGenerator final : public Generator {
 public:
  EngineGenerator(const offload::ModelSource& source, const Tokenizer* tokenizer,
                  const offload::EngineOptions& options)
      : engine_(source, tokenizer, options) {}

  std::int64_t submit(offload::Request request) override { return engine_.submit(std::move(request)); }
  void run(std::stop_token stop, const std::function<void(offload::Result)>& on_result) override {
    engine_.run(std::move(stop), on_result);
  }
  offload::RunStats stats() const override { return engine_.stats(); }
  const offload::EngineOptions* options() const override { return &engine_.options(); }

 private:
  offload::Engine engine_;
};

class IdleGenerator final : public Generator {
 public:
  std::int64_t submit(offload::Request) override {
    throw Error(Code::kInternal, "a request came when none was expected", "please report this");
  }
  void run(std::stop_token, const std::function<void(offload::Result)>&) override {}
  offload::RunStats stats() const override { return {}; }
};

}  // namespace

std::unique_ptr<Generator> make_idle_generator() { return std::make_unique<IdleGenerator>(); }

std::unique_ptr<Generator> make_engine_generator(const offload::ModelSource& source,
                                                 const Tokenizer* tokenizer,
                                                 const offload::EngineOptions& options) {
  return std::make_unique<EngineGenerator>(source, tokenizer, options);
}

}  // namespace sluice::apps
