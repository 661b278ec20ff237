#include "tests/e2e/e2e.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "core/config/config.h"
#include "core/store/manifest.h"
#include "kernels/format/convert.h"
#include "tests/support/paths.h"

namespace sluice::testing {
namespace {

/// A folder that disappears with the process.
class ProcessFolder {
 public:
  ProcessFolder() : path_(std::filesystem::temp_directory_path() / fmt::format("sluice-e2e-{}", ::getpid())) {
    std::filesystem::create_directories(path_);
  }
  ~ProcessFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace

std::filesystem::path store_of_checkpoint(const std::filesystem::path& checkpoint,
                                          const kernels::FormatConfig& formats) {
  static const ProcessFolder folder;
  static std::map<std::string, std::filesystem::path> stores;
  auto& store = stores[checkpoint.string() + print_config(formats)];
  if (store.empty()) {
    store = folder.path() / fmt::format("{}-{}", stores.size(), checkpoint.filename().string());
    kernels::ConvertOptions options;
    options.source.formats = formats;
    kernels::convert_checkpoint(checkpoint, store, options);
  }
  return store;
}

std::filesystem::path store_of(const std::string& golden_name, const kernels::FormatConfig& formats) {
  return store_of_checkpoint(golden(golden_name), formats);
}

std::vector<GoldenCase> golden_cases(const std::string& file_name) {
  std::ifstream in(golden(file_name));
  const nlohmann::json json = nlohmann::json::parse(in);
  std::vector<GoldenCase> cases;
  for (const auto& entry : json.at("cases")) {
    cases.push_back({entry.at("prompt_ids"), entry.at("token_logprobs"), entry.at("greedy_ids"),
                     entry.at("greedy_top2_gap")});
  }
  return cases;
}

policy::Workload workload_of(const std::vector<offload::Request>& requests, std::int64_t max_positions) {
  policy::Workload work;
  for (const offload::Request& request : requests) {
    const auto prompt = static_cast<std::int64_t>(request.prompt_ids.size());
    work.add_request(prompt, request.max_new_tokens);
    work.max_total_len = std::min(work.max_total_len, max_positions);
    if (request.want_prompt_logprobs) work.max_logprob_rows = std::max(work.max_logprob_rows, prompt);
    work.max_top_logprobs = std::max(work.max_top_logprobs, request.num_top_logprobs);
  }
  return work;
}

RunOutcome run_requests(const offload::ModelSource& source, const policy::Placement& placement,
                        std::vector<offload::Request> requests, const Tokenizer* tokenizer,
                        const offload::RunHooks* hooks, int num_threads, const RunDevice& device,
                        SeatLengths seats) {
  RunOutcome outcome;
  const auto own = std::make_shared<offload::RunHooks>();
  if (hooks != nullptr) *own = *hooks;
  std::unique_ptr<policy::ScheduleChecker> checker;
  own->on_shape = [&](const policy::RunShape& shape) {
    outcome.shape = shape;
    checker = std::make_unique<policy::ScheduleChecker>(outcome.shape);
  };
  own->on_finished = [&](const policy::Schedule& schedule, const policy::Pass* pass,
                         const std::vector<policy::StepTime>& times) {
    if (pass != nullptr) outcome.passes.push_back(*pass);
    checker->add(schedule, pass != nullptr ? &outcome.passes.back() : nullptr, &times);
  };
  offload::EngineOptions options;
  options.placement = placement;
  const std::int64_t context =
      source.random_spec ? source.random_spec->max_positions : read_manifest(source.store).spec.max_positions;
  options.workload = workload_of(requests, context);
  if (seats == SeatLengths::kLongest) options.workload.seat_demand.clear();
  options.num_threads = num_threads;
  options.device = device.device;
  options.batch_invariance = device.batch_invariance;
  options.host_weights = device.host_weights;
  options.weight_piece_bytes = device.weight_piece_bytes;
  options.hooks = own;
  offload::Engine engine(source, tokenizer, options);
  outcome.results.resize(requests.size());
  for (offload::Request& request : requests) engine.submit(std::move(request));
  engine.run({}, [&](offload::Result result) {
    const auto index = static_cast<std::size_t>(result.index);
    outcome.results.at(index) = std::move(result);
  });
  outcome.stats = engine.stats();
  outcome.weight_bytes = outcome.shape.weight_bytes;
  outcome.violations = checker->violations();
  return outcome;
}

}  // namespace sluice::testing
