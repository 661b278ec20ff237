#include "policy/estimate.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "policy/compose_pass.h"

namespace sluice::policy {
namespace {

using LaneSec = std::array<double, kNumLanes>;

constexpr int kPlayedPasses = 3;  // of those that a block's prompts take

/// Adds what the steps of a pass take on each lane, as build_pass would emit them.
class LaneSums {
 public:
  LaneSums(const RunShape& shape, const Rates& rates, StepCosts& costs)
      : shape_(shape), rates_(rates), costs_(costs) {}

  void add_weights(LaneSec& sum) const {
    for (std::int64_t unit = 1; unit < num_units(shape_.spec); ++unit) {
      const UnitStream& stream = shape_.units[static_cast<std::size_t>(unit)];
      const std::int64_t piece = shape_.traits.weight_piece_bytes;
      sum[lane_index(LaneKind::kH2d)] +=
          rates_.copy_sec(Link::kH2d, stream.cpu_bytes, piece) +
          rates_.copy_sec(Link::kH2d, stream.disk_bytes, piece) +
          static_cast<double>(shape_.num_pieces(stream)) * rates_.overhead_sec(LaneKind::kH2d);
      sum[lane_index(LaneKind::kDiskRead)] +=
          rates_.disk_read_sec(stream.disk_bytes) +
          static_cast<double>(shape_.disk_pieces(stream)) * rates_.overhead_sec(LaneKind::kDiskRead);
    }
  }

  void add_pass(const Pass& pass, LaneSec& sum) {
    costs_.set_pass(pass);
    number_ = pass.number;
    for (std::size_t b = 0; b < pass.batches.size(); ++b) {
      const BatchPass& batch = pass.batches[b];
      if (batch.num_tokens == 0) continue;
      batch_ = static_cast<std::int16_t>(b);
      const auto layers = static_cast<double>(shape_.spec.num_layers);
      const bool moves = shape_.activation_tier[b] != Tier::kGpu;
      const bool on_disk = shape_.activation_tier[b] == Tier::kDisk;
      const std::int64_t stream_bytes = batch.num_tokens * shape_.spec.hidden_dim * shape_.act_bytes();
      add(sum, StepKind::kEmbed, LaneKind::kGpu, 0, 1);
      for (std::int64_t unit = 1; unit <= shape_.spec.num_layers; ++unit) {
        unit_ = static_cast<std::int16_t>(unit);
        add(sum, StepKind::kPre, LaneKind::kGpu, 0, 1);
        add(sum, StepKind::kPost, LaneKind::kGpu, 0, 1);
      }
      if (batch.num_gpu_segments > 0) add(sum, StepKind::kAttend, LaneKind::kGpu, 0, layers);
      if (batch.num_cpu_rows > 0) {
        const std::int64_t row = shape_.q_dim() * shape_.act_bytes();
        const std::int64_t kv_row = 2 * shape_.kv_dim() * shape_.act_bytes();
        add(sum, StepKind::kAttend, LaneKind::kCpu, 0, layers);
        add(sum, StepKind::kSendQkv, LaneKind::kD2hUrgent, batch.num_cpu_rows * (row + kv_row), layers);
        add(sum, StepKind::kSendAttention, LaneKind::kH2dUrgent, batch.num_cpu_rows * row, layers);
      }
      if (batch.load_kv_bytes > 0) add(sum, StepKind::kLoadKv, LaneKind::kH2d, batch.load_kv_bytes, layers);
      if (batch.store_kv_bytes > 0)
        add(sum, StepKind::kStoreKv, LaneKind::kD2h, batch.store_kv_bytes, layers);
      if (batch.read_kv_bytes > 0)
        add(sum, StepKind::kReadKv, LaneKind::kDiskRead, batch.read_kv_bytes, layers);
      if (batch.write_kv_bytes > 0)
        add(sum, StepKind::kWriteKv, LaneKind::kDiskWrite, batch.write_kv_bytes, layers);
      if (moves) {
        add(sum, StepKind::kLoadActivations, LaneKind::kH2d, stream_bytes, layers);
        add(sum, StepKind::kStoreActivations, LaneKind::kD2h, stream_bytes, layers + 1);
      }
      if (moves && on_disk) {
        add(sum, StepKind::kReadActivations, LaneKind::kDiskRead, stream_bytes, layers);
        add(sum, StepKind::kWriteActivations, LaneKind::kDiskWrite, stream_bytes, layers + 1);
      }
      if (batch.num_wanted > 0) add(sum, StepKind::kHead, LaneKind::kGpu, 0, 1);
    }
  }

 private:
  void add(LaneSec& sum, StepKind kind, LaneKind lane, std::int64_t bytes, double times) {
    Step step;
    step.kind = kind;
    step.lane = lane;
    step.pass = number_;
    step.unit = unit_;
    step.gpu_batch = batch_;
    step.bytes = bytes;
    sum[lane_index(lane)] += times * costs_.seconds(step);
  }

  const RunShape& shape_;
  const Rates& rates_;
  StepCosts& costs_;
  std::int32_t number_ = 0;
  std::int16_t unit_ = 1, batch_ = 0;
};

/// The lanes of a pass at work together. With one GPU batch the GPU waits for the CPU's attention and the CPU
/// for the GPU; both links are shared by their bulk and urgent transfers.
double together(const RunShape& shape, const LaneSec& sum) {
  const auto at = [&](LaneKind lane) { return sum[lane_index(lane)]; };
  const double urgent = at(LaneKind::kH2dUrgent) + at(LaneKind::kD2hUrgent);
  const double compute = shape.lag > 0 ? std::max(at(LaneKind::kGpu), at(LaneKind::kCpu) + urgent)
                                       : at(LaneKind::kGpu) + at(LaneKind::kCpu) + urgent;
  return std::max({compute, at(LaneKind::kH2d) + at(LaneKind::kH2dUrgent),
                   at(LaneKind::kD2h) + at(LaneKind::kD2hUrgent), at(LaneKind::kDiskRead),
                   at(LaneKind::kDiskWrite)});
}

void add(LaneSec& to, double times, const LaneSec& what) {
  for (std::size_t i = 0; i < kNumLanes; ++i) to[i] += times * what[i];
}

/// The same with the weights of `passes` passes: under the other work, or before it where nothing is
/// prefetched. A unit's pieces are read from disk while others of it are loaded.
double together(const RunShape& shape, LaneSec sum, const LaneSec& weights, double passes) {
  if (shape.placement.prefetch) {
    add(sum, passes, weights);
    return together(shape, sum);
  }
  return together(shape, sum) + passes * together(shape, weights);
}

}  // namespace

RequestMeans means_of(std::span<const RequestLength> requests) {
  RequestMeans means;
  for (const RequestLength& request : requests) {
    ++means.count;
    means.prompt_len += static_cast<double>(request.prompt_len);
    means.gen_len += static_cast<double>(request.gen_len);
  }
  if (means.count > 0) {
    means.prompt_len /= static_cast<double>(means.count);
    means.gen_len /= static_cast<double>(means.count);
  }
  return means;
}

Estimate estimate(const RunShape& shape, const Rates& rates, const ModelProducts& products,
                  const RequestMeans& requests) {
  StepCosts costs(shape, rates, products);
  LaneSums sums(shape, rates, costs);
  LaneSec weights{};
  sums.add_weights(weights);
  Estimate result;
  const std::int64_t block = std::min(shape.placement.block_size(), requests.count);
  const auto prompt = std::max<std::int64_t>(1, std::llround(requests.prompt_len));
  const auto half = static_cast<std::int64_t>(requests.gen_len / 2);
  const auto num_seats = static_cast<std::size_t>(shape.placement.block_size());

  // The prompts of one block, in as many passes as they take.
  std::vector<RequestLength> prompts(static_cast<std::size_t>(block), {prompt, 1});
  for (RequestLength& each : prompts) {
    const std::int64_t longest = shape.pages_per_seat * kKvPageTokens;
    each.prompt_len = std::min(prompt, longest);
  }
  QueuePlayer player(shape, prompts);
  Pass pass;
  double prefill_sec = 0;
  std::int64_t rows = 0;
  for (int passes = 0; passes < kPlayedPasses && player.compose(pass); ++passes) {
    LaneSec one{};
    for (const BatchPass& batch : pass.batches) rows += batch.num_tokens;
    sums.add_pass(pass, one);
    add(result.prefill, 1, one);
    prefill_sec += together(shape, one, weights, 1) + rates.pass_overhead_sec();
    player.advance(pass);
  }
  // Many small passes are all alike.
  std::int64_t all_rows = 0;
  for (const RequestLength& each : prompts) all_rows += each.prompt_len;
  const double scale = static_cast<double>(all_rows) / static_cast<double>(std::max<std::int64_t>(1, rows));
  prefill_sec *= scale;
  for (double& lane : result.prefill) lane *= scale;

  // A decode pass in the middle of the generation.
  std::vector<SeatState> seats(num_seats);
  for (std::int64_t i = 0; i < block; ++i) {
    // Spread over the GPU batches, as admissions are.
    const std::int64_t batches = shape.placement.num_gpu_batches;
    const auto seat = static_cast<std::size_t>(i % batches * shape.placement.gpu_batch_size + i / batches);
    const std::int64_t room = shape.seats.seats[seat].total() * kKvPageTokens - 1;
    const std::int64_t length = std::max<std::int64_t>(1, std::min(prompt + half, room));
    seats[seat] = {.active = true, .kv_len = length, .prompt_len = std::min(prompt, length)};
  }
  compose_pass(shape, seats, {}, 0, pass);
  sums.add_pass(pass, result.decode);
  const LaneSec decode = result.decode;
  const double decode_sec = together(shape, decode, weights, 1) + rates.pass_overhead_sec();
  add(result.decode, 1, weights);

  const double blocks =
      static_cast<double>(requests.count) / static_cast<double>(std::max<std::int64_t>(1, block));
  const double later = std::max(0.0, requests.gen_len - 1);
  result.block_sec = prefill_sec + later * decode_sec;
  if (!shape.placement.mixing || blocks <= 1) {
    result.total_sec = blocks * result.block_sec;
  } else {
    // Refilled seats bring their prompts into decode passes, under the weights that stream anyway.
    LaneSec all = result.prefill;
    const double passes = std::max(1.0, later);
    add(all, passes, decode);
    const double steady = together(shape, all, weights, passes);
    result.total_sec = result.block_sec + (blocks - 1) * std::max(steady, later * decode_sec);
  }
  return result;
}

}  // namespace sluice::policy
