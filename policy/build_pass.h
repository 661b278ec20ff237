// Turns a pass into a schedule: FlexGen's zig-zag block (Sheng et al. 2023, section 4.1) without its
// barriers. SCHEDULE.md beside this file explains the order. Pure; one builder per run keeps what later
// passes depend on.
#pragma once

#include <cstdint>

#include "policy/hazards.h"
#include "policy/pass.h"
#include "policy/run_shape.h"
#include "policy/step.h"

namespace sluice::policy {

class ScheduleBuilder {
 public:
  /// `shape` outlives the builder.
  explicit ScheduleBuilder(const RunShape& shape);

  /// The first weight transfers, before any pass. Call once, first.
  void build_prologue(Schedule& schedule);
  /// Replaces `schedule` with this pass's steps and with the
  /// weight transfers of the next pass that fit. Allocates nothing if max_steps were reserved.
  void build_pass(const Pass& pass, Schedule& schedule);

  /// Upper bound of the steps of any one pass.
  std::size_t max_steps() const;

  HazardTracker& hazards() { return hazards_; }

 private:
  struct Item {
    std::int64_t unit = 0, batch = 0;
  };
  Item item(std::int64_t index) const;
  const BatchPass& batch_of(const Item& item) const {
    return pass_->batches[static_cast<std::size_t>(item.batch)];
  }
  bool runs(const Item& item) const { return batch_of(item).num_tokens > 0; }

  Step make(StepKind kind, LaneKind lane, const Item& item) const;
  void emit(Step step, std::initializer_list<Access> accesses);
  void emit(Step step, std::span<const Access> accesses);
  static void join_gpu_steps(Schedule& schedule);

  // Weights.
  std::int64_t unit_of_stream(std::int64_t stream) const;
  const UnitStream& unit_at(std::int64_t stream) const {
    return shape_.units[static_cast<std::size_t>(unit_of_stream(stream))];
  }
  void emit_load_piece(std::int64_t stream, std::int64_t piece);
  void emit_read_piece(std::int64_t stream, std::int64_t disk_piece);
  void release_stream(std::int64_t stream);
  void emit_weight_share(std::int64_t share, std::int64_t shares);
  /// Without prefetch: the transfers of `stream`, unless they are out. Comes right before its first reader.
  void fetch_stream(std::int64_t stream);
  bool prefetches() const { return shape_.placement.prefetch; }
  Access reads_weights(std::int64_t stream) const;

  // Items.
  void prefetch(std::int64_t limit);
  void load_item(std::int64_t index);
  void front(std::int64_t index);
  void back(std::int64_t index);
  void emit_embed(std::int64_t index);
  void emit_attention(std::int64_t index);
  void emit_cpu_attention(std::int64_t index, Step step);
  void emit_kv_stores(std::int64_t index);
  void emit_head(std::int64_t index);
  void load_activations(std::int64_t index);
  void store_activations(std::int64_t index);

  /// The window and the KV stage of an item, -1 if it needs none; taken in turn by the items that do.
  void take_kv_slots(std::int64_t index);
  std::int16_t window_of(std::int64_t index) const { return window_[static_cast<std::size_t>(index)]; }
  std::int16_t stage_of(std::int64_t index) const { return stage_[static_cast<std::size_t>(index)]; }
  std::int64_t set_of(std::int64_t index) const { return index % shape_.num_sets; }
  bool rests_off_gpu(std::int64_t batch) const;
  Access kv_access(ResourceKind kind, const Item& item, bool write) const;

  const RunShape& shape_;
  const std::int64_t num_batches_;
  const std::int64_t streams_per_pass_;  // num_layers + 1
  HazardTracker hazards_;
  std::array<std::int64_t, kNumLanes> next_seq_{};

  // The pass being built.
  const Pass* pass_ = nullptr;
  Schedule* schedule_ = nullptr;
  std::int64_t first_stream_ = 0;             // stream that carries the input tensors of this pass
  std::int64_t next_load_ = 0;                // next item whose KV and activations are not yet on their way
  std::int64_t backs_done_ = 0;               // items whose post has been emitted
  std::vector<std::int16_t> act_slot_;        // per item
  std::vector<std::int16_t> window_, stage_;  // per item
  std::int64_t act_ring_ = 0, window_ring_ = 0, stage_ring_ = 0;  // next of each ring

  // Weight transfers waiting to be spread over the items of the current unit.
  std::int64_t pending_load_ = -1, pending_read_ = -1;
  std::int64_t pending_next_ = 0, pending_pieces_ = 0;
  std::int64_t next_fetched_ = 0;  // without prefetch: first stream whose transfers are not out
};

}  // namespace sluice::policy
