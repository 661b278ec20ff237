// Shared by the end-to-end tests: stores converted once per process, golden cases, and runs whose every
// schedule is judged by its recorded timeline.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "kernels/format/format_rules.h"
#include "offload/engine.h"
#include "offload/executor/run_hooks.h"
#include "policy/check_schedule.h"
#include "policy/kv_traffic.h"

namespace sluice::testing {

/// The store of a bundled checkpoint, converted in a folder that lives as long as the process.
std::filesystem::path store_of(const std::string& golden_name, const kernels::FormatConfig& formats = {});

/// The same of a checkpoint in any folder.
std::filesystem::path store_of_checkpoint(const std::filesystem::path& checkpoint,
                                          const kernels::FormatConfig& formats = {});

/// The same as the source of an engine.
inline offload::ModelSource model(const std::string& golden_name) {
  offload::ModelSource source;
  source.store = store_of(golden_name);
  return source;
}

/// A case of a golden file: what transformers computed in fp32.
struct GoldenCase {
  std::vector<std::int32_t> prompt_ids;
  std::vector<double> token_logprobs;  ///< [i] = log p(prompt_ids[i + 1])
  std::vector<std::int32_t> greedy_ids;
  std::vector<double> greedy_top2_gap;
};
std::vector<GoldenCase> golden_cases(const std::string& file_name);

/// What a run gave, with what its lanes moved.
struct RunOutcome {
  std::vector<offload::Result> results;  ///< in submission order
  offload::RunStats stats;
  std::vector<std::string> violations;   ///< of the recorded timeline
  PerTier<std::int64_t> weight_bytes{};  ///< as placed
  policy::RunShape shape;
  std::vector<policy::Pass> passes;  ///< as composed
};

/// The device of a run, and what it promises.
struct RunDevice {
  offload::DeviceChoice device{.kind = offload::DeviceChoice::Kind::kCpu};
  kernels::BatchInvariance batch_invariance = kernels::BatchInvariance::kOff;
  offload::HostWeights host_weights = offload::HostWeights::kPinned;
  std::int64_t weight_piece_bytes = 0;  ///< 0: the engine's choice
};

/// How long the seats of a block are.
enum class SeatLengths : std::uint8_t { kLongest, kOfRequests };

/// Runs the requests on a fresh engine. Fills in the workload from the requests. `hooks` may be null.
RunOutcome run_requests(const offload::ModelSource& source, const policy::Placement& placement,
                        std::vector<offload::Request> requests, const Tokenizer* tokenizer = nullptr,
                        const offload::RunHooks* hooks = nullptr, int num_threads = 2,
                        const RunDevice& device = {}, SeatLengths seats = SeatLengths::kLongest);

policy::Workload workload_of(const std::vector<offload::Request>& requests, std::int64_t max_positions);

}  // namespace sluice::testing
