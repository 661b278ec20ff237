// The generation API: reserve everything, submit requests, run. README.md beside this file says what is
// where.
//
// After a failed or stopped run the engine only answers stats(); make a new one to go on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/model/spec.h"
#include "core/sampling/sampling.h"
#include "core/tier.h"
#include "core/tokenizer/tokenizer.h"
#include "kernels/device/stream.h"
#include "kernels/format/format_rules.h"
#include "offload/memory/host_weights.h"
#include "policy/placement.h"

namespace sluice::offload {

/// A token and its log-probability under the raw logits.
struct TokenLogprob {
  std::int32_t token_id = 0;
  float logprob = 0;
};

struct GeneratedLogprob {
  std::int32_t token_id = 0;
  float logprob = 0;
  std::vector<TokenLogprob> top;
};

struct Request {
  std::vector<std::int32_t> prompt_ids;  ///< not empty
  std::int64_t max_new_tokens = 32;      ///< 0 scores the prompt
  SamplingParams sampling;
  std::vector<std::string> stop;  ///< text ends before the first of these; needs a tokenizer
  std::vector<std::int32_t> stop_ids;
  bool ignore_eos = false;
  bool want_logprobs = false;         ///< log-prob of each generated token, with
  std::int32_t num_top_logprobs = 0;  ///< this many of the most likely ones
  bool want_prompt_logprobs = false;
  std::optional<std::uint64_t>
      draw_key;  ///< with the seed, keys the random draws; default: the submission index
  std::function<void(std::int32_t token_id)>
      on_token;  ///< optional, called from the run thread as tokens come
};

enum class FinishReason : std::uint8_t { kEos, kStop, kLength, kCancelled };
std::string_view finish_reason_name(FinishReason reason);

struct Result {
  std::int64_t index = 0;               ///< number of the request in submission order, from 0
  std::vector<std::int32_t> token_ids;  ///< every generated token, the end token included
  std::string text;                     ///< empty without a tokenizer; ends before the stop string
  FinishReason finish_reason = FinishReason::kLength;
  std::vector<GeneratedLogprob> logprobs;
  std::vector<float> prompt_logprobs;  ///< [i] = log p(prompt_ids[i+1] | prompt_ids[..i])
};

struct RunHooks;  // offload/executor/run_hooks.h

/// Which device runs the gpu lane and holds the GPU tier.
struct DeviceChoice {
  enum class Kind : std::uint8_t {
    kAuto,
    kCpu,
    kCuda
  } kind = Kind::kAuto;  ///< auto: CUDA where there is a GPU
  int ordinal = 0;       ///< of CUDA devices
};

struct EngineOptions {
  DeviceChoice device{.kind = DeviceChoice::Kind::kCpu};
  policy::Placement placement;
  policy::Workload workload;
  PerTier<std::int64_t> budget_bytes{
      {-1, -1, -1}};               ///< -1: what the placement needs, at most 90 % of what is free
  std::filesystem::path disk_dir;  ///< empty: a private folder under the system's temporary folder
  /// Whether the bits of a result may depend on the shape of the block (on a CUDA device; never on the CPU).
  kernels::BatchInvariance batch_invariance = kernels::BatchInvariance::kOff;
  HostWeights host_weights = HostWeights::kPinned;
  std::int64_t weight_piece_bytes = 0;    ///< weights move in pieces of this size; 0: the device's, 32 MiB
  int num_threads = 0;                    ///< of the compute pool; 0: all cores, but one on a CUDA device
  std::filesystem::path trace_file;       ///< Chrome trace of every step; empty: none
  std::shared_ptr<const RunHooks> hooks;  ///< for tests; may be null
};

/// Where weights come from: a store on disk, or random values made in the tiers.
struct ModelSource {
  std::filesystem::path store;           ///< empty for a synthetic model
  std::optional<ModelSpec> random_spec;  ///< set for a synthetic model
  std::uint64_t random_seed = 0;
  kernels::FormatConfig random_formats;  ///< of a synthetic model's matrices; its zeros are always random
};

/// Counters of a run; bytes are counted where they moved.
struct LaneStats {
  std::string name;  ///< "h2d", "gpu", ...
  std::int64_t bytes = 0;
  std::int64_t steps = 0;
  double busy_sec = 0;
  double stalled_sec = 0;  ///< waiting for other lanes
};
struct RunStats {
  std::string device;  ///< of the gpu lane
  std::vector<LaneStats> lanes;
  PerTier<std::int64_t> planned_bytes, reserved_bytes;
  std::int64_t num_passes = 0, prompt_tokens = 0, generated_tokens = 0, requests_done = 0;
  double load_sec = 0;  ///< reading or making the resident weights; not in wall_sec
  double wall_sec = 0, prefill_sec = 0, decode_sec = 0;  ///< passes with prefill rows, and without
  std::int64_t prefill_passes_tokens = 0, decode_passes_tokens = 0;  ///< tokens generated in each
  double first_token_sec = 0;
  double first_layer_sec = 0;  ///< from the engine's construction to the end of the first layer's computation
  std::int64_t device_bytes = 0;  ///< of its own memory taken since construction, as the device counts it
  std::int64_t peak_resident_bytes = 0;
};

class Engine {
 public:
  /// Reserves and allocates everything, or throws Error{kOutOfMemory} with the missing bytes and the knob.
  /// `tokenizer` may be null (then no text and no stop strings); it outlives the engine.
  Engine(const ModelSource& source, const Tokenizer* tokenizer, const EngineOptions& options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const ModelSpec& spec() const;
  const EngineOptions& options() const;  ///< with the defaults filled in

  /// Queues a request and returns its index. Thread-safe. Throws Error{kInvalidArgument} if it cannot run:
  /// empty prompt, id out of range, prompt longer than the context or than the workload allows.
  std::int64_t submit(Request request);
  /// Cancels a queued or running request; its result comes with FinishReason::kCancelled. Thread-safe.
  void cancel(std::int64_t index);
  /// Runs until every submitted request is done or `stop` is asked for; the first call loads the resident
  /// weights. `on_result` is called on this thread in order of completion. Throws the first failure after the
  /// lanes are drained, be it theirs, `stop` (kCancelled) or what on_result or on_token threw; results
  /// delivered before stay.
  void run(std::stop_token stop, const std::function<void(Result)>& on_result);

  /// Call from the thread that runs, between or after runs.
  RunStats stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// For people who come from FlexGen and transformers: one sampling setting for all rows; each row of the
/// result is prompt and generated ids.
struct GenerateParams {
  bool do_sample = false;
  float temperature = 1.0F;
  std::int64_t max_new_tokens = 32;
  std::optional<std::int32_t> stop;
};
std::vector<std::vector<std::int32_t>> generate(Engine& engine,
                                                const std::vector<std::vector<std::int32_t>>& input_ids,
                                                const GenerateParams& params);

}  // namespace sluice::offload
