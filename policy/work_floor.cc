#include "policy/work_floor.h"

#include <algorithm>

#include "core/error.h"

namespace sluice::policy {
namespace {

double seconds(double amount, double rate, const char* what) {
  if (amount == 0) return 0;
  SLUICE_CHECK(rate > 0, Code::kInvalidArgument, fmt::format("the rate of {} is {}", what, rate),
               "measure it (sluice bench device)");
  return amount / rate;
}

/// Operations of one row in all layers, attention left out.
double layer_flops(const RunShape& shape) {
  const ModelSpec& spec = shape.spec;
  const std::int64_t weights = spec.hidden_dim * (2 * shape.q_dim() + 2 * shape.kv_dim() + 2 * spec.ffn_dim);
  return 2.0 * static_cast<double>(spec.num_layers * weights);
}

}  // namespace

WorkFloor work_floor(const RunShape& shape, std::span<const SequenceWork> work, const MeasuredRates& rates) {
  const PerTier<std::int64_t>& pages = shape.seats.pages_per_layer;
  const std::int64_t all_pages = pages[Tier::kGpu] + pages[Tier::kCpu] + pages[Tier::kDisk];
  std::int64_t longest = 0;
  std::int64_t tokens = 0;
  std::int64_t page_passes = 0;
  double attended = 0;  // KV positions read by decode rows
  double flops = 0;
  const auto head = static_cast<double>(shape.spec.vocab_size * shape.spec.embed_dim);
  for (const SequenceWork& one : work) {
    longest = std::max(longest, one.generated);
    tokens += one.generated;
    page_passes += one.generated * kv_pages(one.seat_tokens);
    // The first token comes with the prompt; the n-th after it reads the prompt and n tokens.
    const auto prompt = static_cast<double>(one.prompt_len);
    const auto decoded = static_cast<double>(std::max<std::int64_t>(0, one.generated - 1));
    const double read = decoded * prompt + decoded * (decoded + 1) / 2;
    attended += read;
    flops += (prompt + decoded) * layer_flops(shape) + static_cast<double>(one.generated) * 2 * head;
    // Scores and sums of the prompt's rows; those of decode rows are not always the GPU's.
    flops += 4 * static_cast<double>(shape.spec.num_layers * shape.q_dim()) * prompt * (prompt + 1) / 2;
  }
  WorkFloor floor;
  floor.least_passes = std::max({longest, div_up(tokens, shape.placement.block_size()),
                                 all_pages > 0 ? div_up(page_passes, all_pages) : 0});
  double weights = 0;
  for (const UnitStream& unit : shape.units) weights += static_cast<double>(unit.bytes());
  const double off_gpu =
      all_pages > 0 ? 1 - static_cast<double>(pages[Tier::kGpu]) / static_cast<double>(all_pages) : 0;
  const double kv = off_gpu * attended * static_cast<double>(shape.spec.num_layers * shape.kv.token_bytes());
  const bool on_cpu = shape.placement.cpu_attention;
  floor.h2d_sec = seconds(static_cast<double>(floor.least_passes) * weights + (on_cpu ? 0 : kv),
                          rates.h2d_bytes_per_sec, "h2d");
  floor.cpu_sec = seconds(on_cpu ? kv : 0, rates.cpu_attention_bytes_per_sec, "CPU attention");
  floor.gpu_sec = seconds(flops, rates.flops, "products");
  return floor;
}

}  // namespace sluice::policy
