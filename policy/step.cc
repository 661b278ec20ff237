#include "policy/step.h"

namespace sluice::policy {

std::string_view lane_name(LaneKind lane) {
  constexpr std::array<std::string_view, kNumLanes> kNames{"disk_read", "disk_write", "h2d", "h2d_urgent",
                                                           "d2h",       "d2h_urgent", "gpu", "cpu"};
  return kNames.at(lane_index(lane));
}

std::string_view step_kind_name(StepKind kind) {
  constexpr std::array<std::string_view, 19> kNames{"read_weights",
                                                    "load_weights",
                                                    "load_inputs",
                                                    "read_activations",
                                                    "load_activations",
                                                    "read_kv",
                                                    "load_kv",
                                                    "embed",
                                                    "pre",
                                                    "attend",
                                                    "send_qkv",
                                                    "send_attention",
                                                    "store_kv",
                                                    "write_kv",
                                                    "post",
                                                    "store_activations",
                                                    "write_activations",
                                                    "head",
                                                    "fetch_results"};
  return kNames.at(static_cast<std::size_t>(kind));
}

void Schedule::reserve(std::size_t max_steps) {
  steps.reserve(max_steps);
  for (auto& lane : lane_steps) lane.reserve(max_steps);
}

void Schedule::clear() {
  steps.clear();
  for (auto& lane : lane_steps) lane.clear();
}

}  // namespace sluice::policy
