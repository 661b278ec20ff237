// An engine that follows a script: it answers requests in a given order, and may fail, be stopped or refuse.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <vector>

#include "apps/generate/generator.h"
#include "core/error.h"

namespace sluice::apps {

class FakeGenerator final : public Generator {
 public:
  /// Answers in this order; in order of submission where it is empty.
  std::vector<std::int64_t> order;
  /// Throws this after so many results.
  std::optional<Error> failure;
  std::int64_t fail_after = 0;
  /// Called before each result, with the number of results so far: to press Ctrl-C.
  std::function<void(std::int64_t)> before_result;
  /// Requests with this first prompt token are refused by submit().
  std::set<std::int32_t> refused_tokens;

  std::int64_t submit(offload::Request request) override {
    if (refused_tokens.contains(request.prompt_ids.front())) {
      throw Error(Code::kInvalidArgument, "the engine refuses this", "ask another");
    }
    requests_.push_back(std::move(request));
    return static_cast<std::int64_t>(requests_.size()) - 1;
  }

  /// The text of a result is "<first prompt token>!", its tokens are the prompt's reversed.
  void run(std::stop_token stop, const std::function<void(offload::Result)>& on_result) override {
    std::vector<std::int64_t> sequence = order;
    for (std::int64_t i = 0; sequence.size() < requests_.size(); ++i) sequence.push_back(i);
    std::int64_t done = 0;
    for (std::int64_t index : sequence) {
      if (before_result) before_result(done);
      if (failure && done == fail_after) throw Error(*failure);
      const offload::Request& request = requests_.at(static_cast<std::size_t>(index));
      offload::Result result;
      result.index = index;
      if (stop.stop_requested()) {
        result.finish_reason = offload::FinishReason::kCancelled;
      } else {
        result.token_ids.assign(request.prompt_ids.rbegin(), request.prompt_ids.rend());
        for (std::int32_t token : result.token_ids) {
          if (request.on_token) request.on_token(token);
        }
        result.text = std::to_string(request.prompt_ids.front()) + "!";
      }
      on_result(std::move(result));
      ++done;
    }
    if (stop.stop_requested()) throw Error(Code::kCancelled, "the run was stopped");
  }

  offload::RunStats stats() const override { return {}; }
  const std::vector<offload::Request>& submitted() const { return requests_; }

 private:
  std::vector<offload::Request> requests_;
};

}  // namespace sluice::apps
