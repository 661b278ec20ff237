#include "offload/choose_device.h"

#include <algorithm>
#include <charconv>
#include <thread>

#include "core/build_config.h"
#include "core/error.h"
#include "core/log.h"
#include "offload/executor/model_runner.h"

namespace sluice::offload {

using Kind = DeviceChoice::Kind;

DeviceChoice parse_device(const std::string& text) {
  constexpr std::string_view kCuda = "cuda:";
  if (text == "auto") return {};
  if (text == "cpu") return {.kind = Kind::kCpu};
  if (text == "cuda") return {.kind = Kind::kCuda};
  DeviceChoice choice{.kind = Kind::kCuda};
  const char* const end = text.data() + text.size();
  if (text.starts_with(kCuda)) {
    const auto [parsed, error] = std::from_chars(text.data() + kCuda.size(), end, choice.ordinal);
    if (error == std::errc() && parsed == end && choice.ordinal >= 0) return choice;
  }
  throw Error(Code::kInvalidArgument, fmt::format("--device is '{}'", text),
              "give auto, cpu, cuda or cuda:N");
}

DeviceChoice choose_device(const DeviceChoice& asked) {
  if (asked.kind != Kind::kAuto) return asked;
  if (kernels::cuda_device_present()) return {.kind = Kind::kCuda, .ordinal = asked.ordinal};
  if (kWithCuda) log_info("the CPU device is used; {}", kernels::cuda_devices_text());
  return {.kind = Kind::kCpu};
}

kernels::DeviceKind device_kind(const DeviceChoice& chosen) {
  return chosen.kind == Kind::kCuda ? kernels::DeviceKind::kCuda : kernels::DeviceKind::kCpu;
}

policy::DeviceTraits device_traits(const WeightSource& weights, const DeviceChoice& chosen,
                                   HostWeights host_weights) {
  return ModelRunner::traits(weights, device_kind(chosen), host_weights);
}

std::optional<std::int64_t> device_free_bytes(const DeviceChoice& chosen) {
  if (chosen.kind != Kind::kCuda) return std::nullopt;
  return kernels::cuda_free_bytes(chosen.ordinal);
}

int default_threads(const DeviceChoice& chosen) {
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, chosen.kind == Kind::kCuda ? cores - 1 : cores);
}

std::unique_ptr<kernels::Device> make_device(const DeviceChoice& asked, kernels::ThreadPool& pool) {
  const DeviceChoice chosen = choose_device(asked);
  return chosen.kind == Kind::kCuda ? kernels::make_cuda_device(chosen.ordinal)
                                    : kernels::make_cpu_device(pool);
}

}  // namespace sluice::offload
