#include "apps/generate/requests.h"

#include <algorithm>
#include <iterator>
#include <span>

#include "apps/jsonl/line_reader.h"
#include "apps/jsonl/request.h"
#include "core/store/checksum.h"

namespace sluice::apps {
namespace {

PendingRequest text_request(std::string prompt, std::string place, std::size_t number,
                            const offload::Request& defaults) {
  PendingRequest pending;
  pending.id = std::to_string(number);
  pending.place = std::move(place);
  pending.prompt = std::move(prompt);
  pending.request = defaults;
  return pending;
}

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t") == line.npos; }

PendingRequest jsonl_request(const LineReader& reader, const std::string& line, const LinePosition& at,
                             const offload::Request& defaults) {
  SLUICE_CHECK(
      !reader.was_too_long(), Code::kInvalidArgument,
      fmt::format("{}:{}: the line is longer than {} MiB", at.file, at.line, LineReader::kMaxLineBytes >> 20),
      "write one JSON object per line");
  RequestLine parsed = parse_request_line(line, at, defaults);
  PendingRequest pending;
  pending.id = std::move(parsed.id);
  pending.prompt = std::move(parsed.prompt);
  pending.request = std::move(parsed.request);
  pending.has_seed = parsed.has_seed;
  return pending;
}

void check_ids(const std::vector<std::int32_t>& ids, std::int64_t vocab_size, std::string_view what) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    SLUICE_CHECK(
        ids[i] >= 0 && ids[i] < vocab_size, Code::kInvalidArgument,
        fmt::format("{}[{}]: token id {} is outside the vocabulary of {}", what, i, ids[i], vocab_size),
        fmt::format("give ids from 0 to {}", vocab_size - 1));
  }
}

void prepare_one(PendingRequest& pending, const RequestLimits& limits) {
  const ModelSpec& spec = *limits.spec;
  offload::Request& request = pending.request;
  if (pending.prompt) {
    SLUICE_CHECK(limits.tokenizer != nullptr, Code::kUnsupported,
                 "a text prompt needs a tokenizer, and the model has none",
                 "give prompt_ids, or --tokenizer DIR with vocab.json and merges.txt");
    request.prompt_ids = limits.tokenizer->encode(*pending.prompt, limits.add_bos);
    SLUICE_CHECK(!request.prompt_ids.empty(), Code::kInvalidArgument, "the prompt has no tokens",
                 "write a prompt, or leave out --no-bos");
  }
  SLUICE_CHECK(request.stop.empty() || limits.tokenizer != nullptr, Code::kUnsupported,
               "stop strings need a tokenizer, and the model has none",
               "give stop_ids, or --tokenizer DIR with vocab.json and merges.txt");
  check_ids(request.prompt_ids, spec.vocab_size, "prompt_ids");
  check_ids(request.stop_ids, spec.vocab_size, "stop_ids");
  SLUICE_CHECK(request.num_top_logprobs <= spec.vocab_size, Code::kInvalidArgument,
               fmt::format("logprobs: {} are more than the vocabulary of {}", request.num_top_logprobs,
                           spec.vocab_size),
               "ask for fewer");
  const auto prompt_len = static_cast<std::int64_t>(request.prompt_ids.size());
  SLUICE_CHECK(
      prompt_len <= spec.max_positions, Code::kInvalidArgument,
      fmt::format("the prompt has {} tokens and the context holds {}", prompt_len, spec.max_positions),
      "shorten the prompt");
  request.max_new_tokens = std::min(request.max_new_tokens, spec.max_positions - prompt_len);
}

}  // namespace

std::vector<PendingRequest> requests_from_texts(const std::vector<std::string>& prompts,
                                                const offload::Request& defaults) {
  std::vector<PendingRequest> requests;
  requests.reserve(prompts.size());
  for (const std::string& prompt : prompts) {
    requests.push_back(
        text_request(prompt, fmt::format("prompt {}", requests.size() + 1), requests.size(), defaults));
  }
  return requests;
}

std::vector<PendingRequest> requests_from_text_file(const std::string& path,
                                                    const offload::Request& defaults) {
  LineReader reader(path);
  std::vector<PendingRequest> requests;
  for (std::string line; reader.next(line);) {
    const std::string place = fmt::format("{}:{}", reader.name(), reader.line_number());
    SLUICE_CHECK(!reader.was_too_long(), Code::kInvalidArgument, place + ": the line is too long",
                 "shorten the prompt");
    if (is_blank(line)) continue;
    requests.push_back(text_request(std::move(line), place, requests.size(), defaults));
  }
  return requests;
}

std::vector<PendingRequest> requests_from_jsonl(const std::string& path, const offload::Request& defaults,
                                                OnBadRequest on_bad) {
  LineReader reader(path);
  std::vector<PendingRequest> requests;
  for (std::string line; reader.next(line);) {
    if (is_blank(line) && !reader.was_too_long()) continue;
    const LinePosition at{.file = reader.name(),
                          .line = reader.line_number(),
                          .request = static_cast<std::int64_t>(requests.size())};
    PendingRequest pending;
    try {
      pending = jsonl_request(reader, line, at, defaults);
    } catch (const Error& e) {
      if (on_bad == OnBadRequest::kStop) throw;
      pending.id = id_of_line(line, at);
      pending.problem = {e.code(), e.what()};
    }
    pending.place = fmt::format("{}:{}", at.file, at.line);
    requests.push_back(std::move(pending));
  }
  return requests;
}

void prepare_requests(std::vector<PendingRequest>& requests, const RequestLimits& limits,
                      OnBadRequest on_bad) {
  for (PendingRequest& pending : requests) {
    if (!pending.problem.ok()) continue;
    try {
      prepare_one(pending, limits);
    } catch (const Error& e) {
      pending.problem = {e.code(), fmt::format("{}: {}", pending.place, e.what())};
      if (on_bad == OnBadRequest::kStop) pending.problem.throw_if_failed();
    }
  }
}

RunWork work_of(const std::vector<PendingRequest>& requests) {
  RunWork all;
  policy::Workload& work = all.workload;
  for (const PendingRequest& pending : requests) {
    if (!pending.problem.ok()) continue;
    const offload::Request& request = pending.request;
    const auto prompt_len = static_cast<std::int64_t>(request.prompt_ids.size());
    work.add_request(prompt_len, request.max_new_tokens);
    all.requests.push_back({prompt_len, request.max_new_tokens});
    if (request.want_prompt_logprobs) work.max_logprob_rows = std::max(work.max_logprob_rows, prompt_len);
    if (request.want_logprobs)
      work.max_top_logprobs = std::max(work.max_top_logprobs, request.num_top_logprobs);
  }
  return all;
}

std::uint64_t request_hash(const PendingRequest& pending) {
  // Lengths stand before lists and texts, so that no two requests spell the same.
  std::string text = fmt::format("{} {} ", pending.id.size(), pending.id);
  const offload::Request& r = pending.request;
  const auto add_ids = [&](const std::vector<std::int32_t>& ids) {
    fmt::format_to(std::back_inserter(text), "[{}:", ids.size());
    for (std::int32_t id : ids) fmt::format_to(std::back_inserter(text), "{},", id);
    text += ']';
  };
  add_ids(r.prompt_ids);
  add_ids(r.stop_ids);
  for (const std::string& stop : r.stop)
    fmt::format_to(std::back_inserter(text), "{}:{};", stop.size(), stop);
  fmt::format_to(std::back_inserter(text), "{} {} {} {} {} {} {} {} {} {} {} {}", r.max_new_tokens,
                 r.sampling.do_sample, r.sampling.temperature, r.sampling.top_k, r.sampling.top_p,
                 r.sampling.seed, pending.has_seed, r.ignore_eos, r.want_logprobs, r.num_top_logprobs,
                 r.want_prompt_logprobs, pending.problem.ok());
  return store_checksum(std::as_bytes(std::span(text)));
}

}  // namespace sluice::apps
