// From the flags of `sluice plan` to what the planner solves. One thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "policy/planner.h"

namespace CLI {
class App;
}

namespace sluice::apps {

struct PlanFlags {
  std::string model, format, hardware, input;
  double sparsity = 0;
  std::string gpu_memory, cpu_memory, disk_memory;
  std::int64_t prompt_len = 0, gen_len = -1, num_requests = 0;
  std::vector<int> percent;
  bool cpu_cache_compute = false, no_cpu_cache_compute = false, no_mixing = false, no_prefetch = false;
  std::int64_t gpu_batch_size = 0, num_gpu_batches = 0, prefetch_depth = 0, max_tokens_per_gpu_batch = 0;
  int threads = 0;
  std::string kv_format = "fp16";
  std::vector<std::string> allow_formats;
  double max_latency_sec = 0;
  std::string device = "auto";
  std::string disk_dir;
};

/// Adds the options that make the problem.
void add_plan_flags(CLI::App& command, PlanFlags& flags);

/// The profile that --hardware names (a file, or one that ships), the user's own, or a short measurement of
/// this machine: profile/find_profile.h. Throws Error{kNotFound, kInvalidArgument}.
policy::HardwareProfile hardware_of(const PlanFlags& flags);

/// One problem for each format that may be chosen, at least one. Throws Error{kInvalidArgument, kNotFound}
/// naming the flag.
struct NamedProblem {
  std::string format;  ///< of the decoder layers' matrices
  policy::PlanProblem problem;
};
std::vector<NamedProblem> problems_of(const PlanFlags& flags, const policy::HardwareProfile& hardware);

}  // namespace sluice::apps
