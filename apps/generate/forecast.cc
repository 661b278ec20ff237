#include "apps/generate/forecast.h"

#include "policy/profile_floor.h"

namespace sluice::apps {

Forecast forecast(const KnownProfile& profile, const policy::RunShape& shape,
                  std::span<const Encoding> formats, std::span<const policy::SequenceWork> work,
                  int attention_threads) {
  std::vector<policy::RequestLength> requests;
  requests.reserve(work.size());
  for (const policy::SequenceWork& one : work) requests.push_back({one.prompt_len, one.generated});
  return {.origin = profile.origin,
          .floor = work_floor(shape, work, measured_rates(profile.hardware, shape, formats)),
          .predicted = simulate(shape, profile.hardware, requests,
                                {.formats = formats, .attention_threads = attention_threads}),
          .peak_bytes_per_sec = peak_rates(profile.hardware, shape.placement.kv_format)};
}

std::string_view wall_of(const policy::WorkFloor& floor) {
  const double most = floor.sec();
  if (most == floor.gpu_sec) return "products and attention on the GPU";
  if (most == floor.h2d_sec) return "weights and KV on their way to the GPU";
  if (most == floor.cpu_sec) return "attention on the CPU";
  if (most == floor.disk_sec) return "reads from disk";
  if (most == floor.serial_sec) return "the prompts, and then the passes that follow the last of them";
  if (most == floor.unprefetched_sec) return "weights and the GPU's work, which --no-prefetch keeps apart";
  return "prompts and decoding, which --no-mixing keeps apart";
}

}  // namespace sluice::apps
