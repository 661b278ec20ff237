#include "policy/work_floor.h"

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace sluice::policy {
namespace {

double seconds(double amount, double rate, const char* what) {
  if (amount == 0) return 0;
  SLUICE_CHECK(rate > 0, Code::kInvalidArgument, fmt::format("the rate of {} is {}", what, rate),
               "measure it (sluice profile, sluice bench device)");
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
  std::int64_t shortest = std::numeric_limits<std::int64_t>::max();
  std::int64_t tokens = 0;
  std::int64_t page_passes = 0;
  std::int64_t decoded_tokens = 0, decoded_page_passes = 0;  // without each first token
  double attended = 0;                                       // KV positions read by decode rows
  double prompt_flops = 0;
  double decode_flops = 0;
  const auto head = static_cast<double>(shape.spec.vocab_size * shape.spec.embed_dim);
  for (const SequenceWork& one : work) {
    longest = std::max(longest, one.generated);
    shortest = std::min(shortest, one.generated);
    tokens += one.generated;
    page_passes += one.generated * kv_pages(one.seat_tokens);
    // The first token comes with the prompt; the n-th after it reads the prompt and n tokens.
    const auto prompt = static_cast<double>(one.prompt_len);
    const std::int64_t after_first = std::max<std::int64_t>(0, one.generated - 1);
    decoded_tokens += after_first;
    decoded_page_passes += after_first * kv_pages(one.seat_tokens);
    const auto decoded = static_cast<double>(after_first);
    const double read = decoded * prompt + decoded * (decoded + 1) / 2;
    attended += read;
    prompt_flops += prompt * layer_flops(shape) + (one.generated > 0 ? 2 * head : 0);
    decode_flops += decoded * (layer_flops(shape) + 2 * head);
    // Scores and sums of the prompt's rows; those of decode rows are not always the GPU's.
    prompt_flops +=
        4 * static_cast<double>(shape.spec.num_layers * shape.q_dim()) * prompt * (prompt + 1) / 2;
  }
  WorkFloor floor;
  floor.least_passes =
      std::max({std::int64_t{work.empty() ? 0 : 1}, longest, div_up(tokens, shape.placement.block_size()),
                all_pages > 0 ? div_up(page_passes, all_pages) : 0});
  double weights = 0;
  double disk_weights = 0;
  for (const UnitStream& unit : shape.units) {
    weights += static_cast<double>(unit.bytes());
    disk_weights += static_cast<double>(unit.disk_bytes);
  }
  const auto share_of_kv = [&](Tier tier) {
    return all_pages > 0 ? static_cast<double>(pages[tier]) / static_cast<double>(all_pages) : 0;
  };
  const double all_kv = attended * static_cast<double>(shape.spec.num_layers * shape.kv.token_bytes());
  const double kv = all_pages > 0 ? (1 - share_of_kv(Tier::kGpu)) * all_kv : 0;
  const bool on_cpu = shape.placement.cpu_attention;
  const auto passes = static_cast<double>(floor.least_passes);
  const double pass_h2d = seconds(weights, rates.h2d_bytes_per_sec, "h2d");
  const double kv_h2d = seconds(on_cpu ? 0 : kv, rates.h2d_bytes_per_sec, "h2d");
  floor.h2d_sec = passes * pass_h2d + kv_h2d;
  floor.cpu_sec = seconds(on_cpu ? kv : 0, rates.cpu_attention_bytes_per_sec, "CPU attention");
  const double prompt_sec = seconds(prompt_flops, rates.flops, "products");
  const double decode_sec = seconds(decode_flops, rates.flops, "products");
  const double read_sec = rates.pass_products_sec;
  floor.gpu_sec = std::max(prompt_sec + decode_sec, passes * read_sec);
  const bool with_disk = rates.disk_read_bytes_per_sec > 0;
  const double pass_disk = with_disk ? disk_weights / rates.disk_read_bytes_per_sec : 0;
  const double kv_disk = with_disk ? share_of_kv(Tier::kDisk) * all_kv / rates.disk_read_bytes_per_sec : 0;
  floor.disk_sec = passes * pass_disk + kv_disk;
  if (work.empty()) return floor;
  const double pass_sec = std::max({pass_h2d, pass_disk, read_sec});
  floor.serial_sec = prompt_sec + static_cast<double>(std::max<std::int64_t>(0, shortest - 1)) * pass_sec;
  if (!shape.placement.prefetch)
    floor.unprefetched_sec = passes * std::max(pass_h2d, pass_disk) + floor.gpu_sec;
  if (shape.placement.mixing) return floor;
  const auto decoding = static_cast<double>(
      std::max({longest - 1, div_up(decoded_tokens, shape.placement.block_size()),
                all_pages > 0 ? div_up(decoded_page_passes, all_pages) : 0, std::int64_t{0}}));
  floor.unmixed_sec =
      std::max(prompt_sec, pass_sec) + std::max({decoding * pass_h2d + kv_h2d, floor.cpu_sec, decode_sec,
                                                 decoding * read_sec, decoding * pass_disk + kv_disk});
  return floor;
}

}  // namespace sluice::policy
