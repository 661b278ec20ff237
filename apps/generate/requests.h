// From prompts as people give them to requests that the engine can run. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/model/spec.h"
#include "core/tokenizer/tokenizer.h"
#include "offload/engine.h"
#include "policy/placement.h"
#include "policy/play_queue.h"

namespace sluice::apps {

/// A request on its way to the engine.
struct PendingRequest {
  std::string id;                     ///< JSON text
  std::string place;                  ///< "in.jsonl:7", "prompt 2": for messages
  std::optional<std::string> prompt;  ///< text that is still to be tokenized, later shown with the result
  offload::Request request;
  bool has_seed = false;  ///< chose its seed itself
  Status problem;         ///< not ok: it cannot run, and its result is this error
};

/// What to do with a request that cannot run.
enum class OnBadRequest { kStop, kKeepGoing };

/// Prompts given as text, one request each.
std::vector<PendingRequest> requests_from_texts(const std::vector<std::string>& prompts,
                                                const offload::Request& defaults);
/// One prompt per line of a text file; empty lines are skipped. Throws Error{kNotFound, kIo}.
std::vector<PendingRequest> requests_from_text_file(const std::string& path,
                                                    const offload::Request& defaults);
/// JSONL (jsonl/request.h), "-" is standard input; blank lines are skipped. A bad line throws, or becomes a
/// request with a problem. Throws Error{kNotFound, kIo}.
std::vector<PendingRequest> requests_from_jsonl(const std::string& path, const offload::Request& defaults,
                                                OnBadRequest on_bad);

/// The limits of the model that requests must keep.
struct RequestLimits {
  const ModelSpec* spec = nullptr;
  const Tokenizer* tokenizer = nullptr;  ///< may be null
  bool add_bos = true;
};

/// Tokenizes text prompts, checks every request against the model and cuts max_new_tokens at the context's
/// end. A request that cannot run throws Error{kInvalidArgument, kUnsupported} naming its place, or gets a
/// problem.
void prepare_requests(std::vector<PendingRequest>& requests, const RequestLimits& limits,
                      OnBadRequest on_bad);

/// What a run has to do.
struct RunWork {
  policy::Workload workload;                    ///< what the engine must be able to hold
  std::vector<policy::RequestLength> requests;  ///< in the order of submission
  bool fill_block = false;                      ///< as many as the chosen block has seats, of these lengths
};

/// Of those without a problem.
RunWork work_of(const std::vector<PendingRequest>& requests);

/// A hash of everything that decides the result of `request` but the model.
std::uint64_t request_hash(const PendingRequest& request);

}  // namespace sluice::apps
