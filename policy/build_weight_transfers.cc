// The transfers of weights in a schedule. Stream s is the s-th unit that a run moves: the output unit,
// layers 1..L, the output unit, ...
#include <algorithm>

#include "policy/access_list.h"
#include "policy/build_pass.h"

namespace sluice::policy {

using detail::AccessList;
using detail::reads;
using detail::writes;

std::int64_t ScheduleBuilder::unit_of_stream(std::int64_t stream) const {
  const std::int64_t position = stream % streams_per_pass_;
  return position == 0 ? output_unit(shape_.spec) : position;
}

Access ScheduleBuilder::reads_weights(std::int64_t stream) const {
  return reads(ResourceKind::kWeightSlot, stream % shape_.num_weight_slots);
}

void ScheduleBuilder::emit_read_piece(std::int64_t stream, std::int64_t disk_piece) {
  const UnitStream& unit = unit_at(stream);
  if (disk_piece < 0 || disk_piece >= shape_.disk_pieces(unit)) return;
  const std::int64_t offset = disk_piece * shape_.traits.weight_piece_bytes;
  const std::int64_t stage = stream % shape_.num_weight_stages;
  Step step = make(StepKind::kReadWeights, LaneKind::kDiskRead, {unit_of_stream(stream), -1});
  step.stage_slot = static_cast<std::int16_t>(stage);
  step.piece = static_cast<std::int16_t>(shape_.cpu_pieces(unit) + disk_piece);
  step.bytes = std::min(shape_.traits.weight_piece_bytes, unit.disk_bytes - offset);
  AccessList accesses;
  accesses.add(writes(ResourceKind::kWeightStage, stage * shape_.max_pieces + disk_piece));
  accesses.add_if(!prefetches(), reads(ResourceKind::kGpuTurn, 0));
  emit(step, accesses.span());
}

void ScheduleBuilder::emit_load_piece(std::int64_t stream, std::int64_t piece) {
  const UnitStream& unit = unit_at(stream);
  if (piece >= shape_.num_pieces(unit)) return;
  const std::int64_t cpu_pieces = shape_.cpu_pieces(unit);
  const bool staged = piece >= cpu_pieces;
  const std::int64_t offset = (staged ? piece - cpu_pieces : piece) * shape_.traits.weight_piece_bytes;
  const std::int64_t part = staged ? unit.disk_bytes : unit.cpu_bytes;
  Step step = make(StepKind::kLoadWeights, LaneKind::kH2d, {unit_of_stream(stream), -1});
  step.weight_slot = static_cast<std::int16_t>(stream % shape_.num_weight_slots);
  step.piece = static_cast<std::int16_t>(piece);
  step.bytes = std::min(shape_.traits.weight_piece_bytes, part - offset);
  AccessList accesses;
  accesses.add(writes(ResourceKind::kWeightSlot, step.weight_slot));
  if (staged) {
    const std::int64_t stage = stream % shape_.num_weight_stages;
    step.stage_slot = static_cast<std::int16_t>(stage);
    accesses.add(reads(ResourceKind::kWeightStage, stage * shape_.max_pieces + piece - cpu_pieces));
  }
  accesses.add_if(!prefetches(), reads(ResourceKind::kGpuTurn, 0));
  emit(step, accesses.span());
}

/// The last reader of `stream` has been emitted: its slot may be refilled. The transfers are kept back and
/// spread over the items of the next unit, so that KV and activations do not queue behind a whole layer.
void ScheduleBuilder::release_stream(std::int64_t stream) {
  emit_weight_share(1, 1);
  if (shape_.num_weight_slots == 0 || !prefetches()) return;
  pending_load_ = stream + shape_.num_weight_slots;
  pending_read_ = shape_.num_weight_stages > 0 ? pending_load_ + shape_.num_weight_stages : -1;
  pending_next_ = 0;
  pending_pieces_ = shape_.num_pieces(unit_at(pending_load_));
  if (pending_read_ >= 0) {
    pending_pieces_ = std::max(pending_pieces_, shape_.cpu_pieces(unit_at(pending_load_)) +
                                                    shape_.disk_pieces(unit_at(pending_read_)));
  }
}

/// Emits transfers until `share` of `shares` of the pending pieces are out. Both units use the same stage
/// slot: a piece of it is read into once its load has been emitted.
void ScheduleBuilder::emit_weight_share(std::int64_t share, std::int64_t shares) {
  const std::int64_t target = div_up(pending_pieces_ * share, shares);
  for (; pending_next_ < target; ++pending_next_) {
    emit_load_piece(pending_load_, pending_next_);
    if (pending_read_ >= 0)
      emit_read_piece(pending_read_, pending_next_ - shape_.cpu_pieces(unit_at(pending_load_)));
  }
}

/// The gpu lane's last step so far is the one right before the stream's first reader, which is emitted next:
/// the transfers wait for it. As that step was emitted before them, it cannot need what they bring.
void ScheduleBuilder::fetch_stream(std::int64_t stream) {
  if (prefetches()) return;
  for (; next_fetched_ <= stream; ++next_fetched_) {
    const UnitStream& unit = unit_at(next_fetched_);
    for (std::int64_t piece = 0; piece < shape_.num_pieces(unit); ++piece) {
      emit_read_piece(next_fetched_, piece - shape_.cpu_pieces(unit));
      emit_load_piece(next_fetched_, piece);
    }
  }
}

void ScheduleBuilder::build_prologue(Schedule& schedule) {
  schedule.clear();
  schedule_ = &schedule;
  pass_ = nullptr;
  if (!prefetches()) return;
  for (std::int64_t stream = 0; stream < shape_.num_weight_slots + shape_.num_weight_stages; ++stream) {
    const std::int64_t pieces = shape_.num_pieces(unit_at(stream));
    for (std::int64_t piece = 0; piece < pieces; ++piece) {
      if (shape_.num_weight_stages > 0) emit_read_piece(stream, piece);
      if (stream < shape_.num_weight_slots) emit_load_piece(stream, piece);
    }
  }
}

}  // namespace sluice::policy
