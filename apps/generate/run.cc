#include "apps/generate/run.h"

#include <exception>

#include "apps/jsonl/result.h"
#include "core/log.h"

namespace sluice::apps {
namespace {

/// The prompt with its continuation, under a line that tells several results apart.
std::string text_result(const PendingRequest& pending, const offload::Result& result, bool is_only_one) {
  std::string text;
  if (!is_only_one) {
    text = fmt::format("=== {} ({} + {} tokens)\n", pending.id, pending.request.prompt_ids.size(),
                       result.token_ids.size());
  }
  return text + pending.prompt.value_or("") + result.text + "\n";
}

std::string format_result(const PendingRequest& pending, const offload::Result& result, ResultFormat format,
                          bool is_only_one) {
  switch (format) {
    case ResultFormat::kNone:
      return {};
    case ResultFormat::kText:
      return text_result(pending, result, is_only_one);
    case ResultFormat::kJsonl:
      break;
  }
  const RequestEcho echo{.id = pending.id,
                         .prompt_ids = pending.request.prompt_ids,
                         .want_logprobs = pending.request.want_logprobs,
                         .want_prompt_logprobs = pending.request.want_prompt_logprobs};
  return result_line(echo, result);
}

class Run {
 public:
  Run(std::vector<PendingRequest>& requests, ResultOutput& output, ResultFormat format, RunCounts& counts,
      const std::function<void()>& on_progress)
      : requests_(requests), output_(output), format_(format), counts_(counts), on_progress_(on_progress) {}

  void submit_all(Generator& generator, OnBadRequest on_bad) {
    counts_ = {.total = static_cast<std::int64_t>(requests_.size()),
               .done = output_.num_done_before(),
               .done_before = output_.num_done_before(),
               .refused = 0,
               .work = {}};
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      const auto index = static_cast<std::int64_t>(i);
      if (output_.is_done(index)) continue;
      PendingRequest& pending = requests_[i];
      if (pending.problem.ok()) submit(generator, pending, index, on_bad);
      if (!pending.problem.ok()) refuse(pending, index);
    }
  }

  /// Runs to the end, to a request to stop, or to the first failure of the engine or the output.
  void run(Generator& generator, std::stop_token stop) {
    on_progress_();
    // A result that cannot be written ends the run as Ctrl-C does, and is rethrown once the engine is quiet.
    std::stop_source inner;
    const std::stop_callback forward(stop, [&] { inner.request_stop(); });
    std::exception_ptr output_failure;
    try {
      generator.run(inner.get_token(), [&](offload::Result result) {
        if (output_failure || result.finish_reason == offload::FinishReason::kCancelled) return;
        try {
          take(std::move(result));
        } catch (...) {
          output_failure = std::current_exception();
          inner.request_stop();
        }
      });
    } catch (const Error& e) {
      if (e.code() != Code::kCancelled || !inner.stop_requested()) throw;
    }
    if (output_failure) std::rethrow_exception(output_failure);
  }

 private:
  void submit(Generator& generator, PendingRequest& pending, std::int64_t index, OnBadRequest on_bad) {
    try {
      // Results must not depend on what else runs or was done before: a seed of its own decides alone, others
      // are told apart by the request's number in the input.
      offload::Request request = pending.request;
      request.draw_key = pending.has_seed ? 0 : static_cast<std::uint64_t>(index);
      request.on_token = [this](std::int32_t) { on_progress_(); };
      const std::int64_t prompt_len = std::ssize(request.prompt_ids);
      const policy::SequenceWork work{prompt_len, 0,
                                      policy::Workload::seat_tokens(prompt_len, request.max_new_tokens)};
      const std::int64_t engine_index = generator.submit(std::move(request));
      SLUICE_ASSERT(engine_index == static_cast<std::int64_t>(index_of_.size()));
      index_of_.push_back(index);
      counts_.work.push_back(work);
    } catch (const Error& e) {
      pending.problem = {e.code(), fmt::format("{}: {}", pending.place, e.what())};
      if (on_bad == OnBadRequest::kStop) pending.problem.throw_if_failed();
    }
  }

  void refuse(const PendingRequest& pending, std::int64_t index) {
    output_.put(index,
                format_ == ResultFormat::kJsonl ? error_line(pending.id, pending.problem) : std::string());
    if (format_ != ResultFormat::kJsonl) log_error("{}", pending.problem.message());
    ++counts_.refused;
    ++counts_.done;
  }

  void take(offload::Result result) {
    const std::int64_t index = index_of_.at(static_cast<std::size_t>(result.index));
    const PendingRequest& pending = requests_[static_cast<std::size_t>(index)];
    output_.put(index, format_result(pending, result, format_, requests_.size() == 1));
    ++counts_.done;
    counts_.work[static_cast<std::size_t>(result.index)].generated = std::ssize(result.token_ids);
    on_progress_();
  }

  std::vector<PendingRequest>& requests_;
  ResultOutput& output_;
  const ResultFormat format_;
  RunCounts& counts_;
  const std::function<void()>& on_progress_;
  std::vector<std::int64_t> index_of_;  ///< engine's number -> ours
};

/// Keeps what is finished on the way out of the failure being handled.
void save_finished(ResultOutput& output) noexcept {
  try {
    const std::string first = Status::from_current_exception().message();
    try {
      output.finish_early();
    } catch (...) {
      const std::string second = Status::from_current_exception().message();
      if (second != first) log_error("{}", second);  // a full disk need not be reported twice
    }
  } catch (...) {  // out of memory or stderr closed: the caller still reports the first failure
  }
}

}  // namespace

void run_requests(Generator& generator, std::vector<PendingRequest>& requests, ResultOutput& output,
                  ResultFormat format, OnBadRequest on_bad, std::stop_token stop, RunCounts& counts,
                  const std::function<void()>& on_progress) {
  Run run(requests, output, format, counts, on_progress);
  try {
    run.submit_all(generator, on_bad);
    run.run(generator, stop);
  } catch (...) {
    save_finished(output);
    throw;
  }
  if (counts.done == counts.total) {
    output.finish();
    return;
  }
  output.finish_early();
  SLUICE_CHECK(stop.stop_requested(), Code::kInternal,
               fmt::format("the engine returned after {} of {} results", counts.done, counts.total),
               "please report this with the command line");
  throw Error(Code::kCancelled, fmt::format("stopped after {} of {} results", counts.done, counts.total),
              "run the same command with --resume to go on, if --output is a file");
}

}  // namespace sluice::apps
