#include "policy/memory_plan.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "core/units.h"

namespace sluice::policy {
namespace {

/// Hands out aligned offsets front to back.
class Packer {
 public:
  explicit Packer(std::int64_t start = 0) : end_(start) {}
  std::int64_t take(std::int64_t bytes) {
    const std::int64_t offset = end_;
    end_ += align_up(bytes, 64);
    return offset;
  }
  std::int64_t total() const { return align_up(end_, kPageAlign); }

 private:
  std::int64_t end_ = 0;
};

}  // namespace

std::string_view purpose_name(Purpose purpose) {
  constexpr std::array<std::string_view, 12> kNames{
      "weights",     "weight slots",       "weight staging", "KV cache", "KV windows", "KV staging",
      "activations", "q, k, v, attention", "workspace",      "inputs",   "results",    "weight slabs"};
  return kNames.at(static_cast<std::size_t>(purpose));
}

std::int64_t MemoryPlan::bytes(Purpose purpose, Tier tier) const {
  for (const PlannedBytes& item : items) {
    if (item.purpose == purpose && item.tier == tier) return item.bytes;
  }
  return 0;
}

SetLayout set_layout(const RunShape& shape, std::int64_t rows) {
  Packer pack;
  SetLayout layout;
  layout.q = pack.take(rows * shape.q_dim() * shape.act_bytes());
  layout.k = pack.take(rows * shape.kv_dim() * shape.act_bytes());
  layout.v = pack.take(rows * shape.kv_dim() * shape.act_bytes());
  layout.attn = pack.take(rows * shape.q_dim() * shape.act_bytes());
  layout.total = pack.total();
  return layout;
}

ScratchLayout scratch_layout(const RunShape& shape) {
  const std::int64_t act = shape.act_bytes();
  const std::int64_t head_rows = std::min(shape.traits.logits_rows, shape.max_result_rows);
  const bool projected = shape.spec.embed_dim != shape.spec.hidden_dim;
  ScratchLayout layout;
  Packer pack;
  layout.workspace = pack.take(shape.traits.workspace_bytes);
  layout.expanded = pack.take(shape.traits.expanded_bytes);
  layout.normed = pack.take(shape.max_tokens * shape.spec.hidden_dim * act);
  layout.embedded = pack.take(projected ? shape.max_tokens * shape.spec.embed_dim * act : 0);
  Packer mlp = pack;
  layout.hidden = mlp.take(std::min(shape.traits.mlp_rows, shape.max_tokens) * shape.spec.ffn_dim * act);
  Packer head = pack;
  layout.rows = head.take(head_rows * shape.spec.hidden_dim * act);
  layout.head_normed = head.take(head_rows * shape.spec.hidden_dim * act);
  layout.projected = head.take(projected ? head_rows * shape.spec.embed_dim * act : 0);
  layout.logits = head.take(head_rows * shape.spec.vocab_size * 4);
  layout.sample = head.take(shape.traits.sample_scratch_bytes);
  layout.total = std::max(mlp.total(), head.total());
  return layout;
}

InputLayout input_layout(const RunShape& shape) {
  Packer pack;
  InputLayout layout;
  layout.ids = pack.take(shape.max_tokens * 4);
  layout.positions = pack.take(shape.max_tokens * 4);
  layout.wanted_rows = pack.take(shape.max_result_rows * 4);
  layout.sample_rows = pack.take(shape.max_result_rows * shape.traits.sample_row_bytes);
  layout.total = pack.total();
  return layout;
}

ResultLayout result_layout(const RunShape& shape) {
  Packer pack;
  ResultLayout layout;
  layout.rows = pack.take(shape.max_result_rows * shape.traits.sampled_row_bytes);
  layout.top =
      pack.take(shape.max_result_rows * shape.workload.max_top_logprobs * shape.traits.top_token_bytes);
  layout.total = pack.total();
  return layout;
}

namespace {

template <class Add>
void add_weights(const RunShape& shape, bool weights_on_disk, Add add) {
  add(Purpose::kWeights, Tier::kGpu, shape.weight_bytes[Tier::kGpu]);
  add(Purpose::kWeights, Tier::kCpu, shape.weight_bytes[Tier::kCpu]);
  if (weights_on_disk) add(Purpose::kWeights, Tier::kDisk, shape.weight_bytes[Tier::kDisk]);
  add(Purpose::kWeightSlots, Tier::kGpu, shape.num_weight_slots * shape.weight_slot_bytes);
  add(Purpose::kWeightStage, Tier::kCpu, shape.num_weight_stages * shape.weight_stage_bytes);
  if (shape.weight_bytes[Tier::kCpu] > 0)
    add(Purpose::kWeightSlabs, Tier::kCpu, shape.traits.num_weight_slabs * shape.traits.weight_piece_bytes);
}

}  // namespace

PerTier<std::int64_t> weight_memory(const RunShape& shape, bool weights_on_disk) {
  PerTier<std::int64_t> total{};
  add_weights(shape, weights_on_disk, [&](Purpose, Tier tier, std::int64_t bytes) { total[tier] += bytes; });
  return total;
}

MemoryPlan make_memory_plan(const RunShape& shape, bool weights_on_disk) {
  MemoryPlan plan;
  const auto add = [&](Purpose purpose, Tier tier, std::int64_t bytes) {
    if (bytes == 0) return;
    plan.items.push_back({purpose, tier, bytes});
    plan.total[tier] += bytes;
  };
  const std::int64_t batches = shape.placement.num_gpu_batches;
  add_weights(shape, weights_on_disk, add);
  for (Tier tier : kTiers) {
    add(Purpose::kKv, tier,
        shape.spec.num_layers * shape.seats.pages_per_layer[tier] * shape.kv.page_stride());
  }
  add(Purpose::kKvWindows, Tier::kGpu, shape.num_windows * shape.window_pages * shape.kv.page_stride());
  add(Purpose::kKvStage, Tier::kCpu, shape.num_kv_stages * shape.kv_stage_pages * shape.kv.page_stride());
  add(Purpose::kActivations, Tier::kGpu, shape.num_activation_slots * shape.activation_bytes);
  add(Purpose::kActivations, Tier::kCpu, shape.num_activation_buffers * shape.activation_bytes);
  add(Purpose::kActivations, Tier::kDisk,
      std::count(shape.activation_tier.begin(), shape.activation_tier.end(), Tier::kDisk) *
          shape.activation_bytes);
  add(Purpose::kSets, Tier::kGpu, shape.num_sets * set_layout(shape, shape.max_tokens).total);
  add(Purpose::kSets, Tier::kCpu, shape.num_sets * set_layout(shape, shape.max_cpu_rows).total);
  add(Purpose::kScratch, Tier::kGpu, scratch_layout(shape).total);
  add(Purpose::kInputs, Tier::kGpu, 2 * batches * input_layout(shape).total);
  add(Purpose::kInputs, Tier::kCpu, 2 * batches * input_layout(shape).total);
  add(Purpose::kResults, Tier::kGpu, batches * result_layout(shape).total);
  add(Purpose::kResults, Tier::kCpu, batches * result_layout(shape).total);
  return plan;
}

std::string to_string(const MemoryPlan& plan, Tier tier) {
  std::string text = fmt::format("{}: {}", tier_name(tier), format_bytes(plan.total[tier]));
  const char* separator = " = ";
  for (const PlannedBytes& item : plan.items) {
    if (item.tier != tier) continue;
    text += fmt::format("{}{} {}", separator, purpose_name(item.purpose), format_bytes(item.bytes));
    separator = " + ";
  }
  return text;
}

std::string to_string(const MemoryPlan& plan) {
  std::string text;
  for (Tier tier : kTiers) text += to_string(plan, tier) + '\n';
  return text;
}

}  // namespace sluice::policy
