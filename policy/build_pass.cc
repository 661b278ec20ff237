#include "policy/build_pass.h"

#include "policy/access_list.h"

namespace sluice::policy {

using detail::AccessList;
using detail::reads;
using detail::writes;

ScheduleBuilder::ScheduleBuilder(const RunShape& shape)
    : shape_(shape),
      num_batches_(shape.placement.num_gpu_batches),
      streams_per_pass_(shape.spec.num_layers + 1),
      hazards_(shape) {
  for (auto* slots : {&act_slot_, &window_, &stage_}) {
    slots->resize(static_cast<std::size_t>(num_units(shape.spec) * num_batches_));
  }
}

ScheduleBuilder::Item ScheduleBuilder::item(std::int64_t index) const {
  return {index / num_batches_, index % num_batches_};
}

bool ScheduleBuilder::rests_off_gpu(std::int64_t batch) const {
  return shape_.activation_tier[static_cast<std::size_t>(batch)] != Tier::kGpu;
}

Access ScheduleBuilder::kv_access(ResourceKind kind, const Item& item, bool write) const {
  return {kind, item.unit * num_batches_ + item.batch, write};
}

Step ScheduleBuilder::make(StepKind kind, LaneKind lane, const Item& item) const {
  Step step;
  step.kind = kind;
  step.lane = lane;
  step.unit = static_cast<std::int16_t>(item.unit);
  step.gpu_batch = static_cast<std::int16_t>(item.batch);
  return step;
}

void ScheduleBuilder::emit(Step step, std::span<const Access> accesses) {
  const std::size_t lane = lane_index(step.lane);
  step.pass = pass_ != nullptr ? pass_->number : -1;
  step.seq = ++next_seq_[lane];
  if (step.lane == LaneKind::kGpu && !prefetches()) {
    AccessList with_turn;
    for (const Access& access : accesses) with_turn.add(access);
    with_turn.add(writes(ResourceKind::kGpuTurn, 0));
    hazards_.order(step, with_turn.span());
  } else {
    hazards_.order(step, accesses);
  }
  schedule_->lane_steps[lane].push_back(static_cast<std::int32_t>(schedule_->steps.size()));
  schedule_->last_seq[lane] = step.seq;
  schedule_->steps.push_back(step);
}

void ScheduleBuilder::emit(Step step, std::initializer_list<Access> accesses) {
  emit(step, std::span<const Access>(accesses.begin(), accesses.size()));
}

// ---- A pass.

void ScheduleBuilder::build_pass(const Pass& pass, Schedule& schedule) {
  schedule.clear();
  schedule_ = &schedule;
  pass_ = &pass;
  next_load_ = num_batches_;  // the input unit loads nothing
  backs_done_ = 0;
  for (std::int64_t batch = 0; batch < num_batches_; ++batch) {
    const Item input{0, batch};
    if (!runs(input)) continue;
    Step step = make(StepKind::kLoadInputs, LaneKind::kH2dUrgent, input);
    step.bytes =
        batch_of(input).num_tokens * 8 + batch_of(input).num_wanted * (4 + shape_.traits.sample_row_bytes);
    emit(step, {writes(ResourceKind::kInputs, (pass.number % 2) * num_batches_ + batch)});
  }
  const std::int64_t num_items = num_units(shape_.spec) * num_batches_;
  const std::int64_t lag = shape_.lag;
  for (std::int64_t index = 0; index < num_items + lag; ++index) {
    if (index < num_items) {
      prefetch(index);
      prefetch(index + 1);
      emit_weight_share(index % num_batches_ + 1, num_batches_);
      front(index);
    }
    if (index >= lag) back(index - lag);
  }
  emit_weight_share(1, 1);
  first_stream_ += streams_per_pass_;
  pass_ = nullptr;
  join_gpu_steps(schedule);
}

/// In a pass whose data is all on the GPU, every end of a step that is made known costs a gap between
/// kernels. Elsewhere transfers run beside the steps, also those of the passes before and after, and want to
/// know.
void ScheduleBuilder::join_gpu_steps(Schedule& schedule) {
  const std::vector<std::int32_t>& gpu = schedule.lane_steps[lane_index(LaneKind::kGpu)];
  if (gpu.empty()) return;
  for (std::size_t lane = 0; lane < kNumLanes; ++lane) {
    const auto kind = static_cast<LaneKind>(lane);
    const bool is_small =
        kind == LaneKind::kGpu || kind == LaneKind::kH2dUrgent || kind == LaneKind::kD2hUrgent;
    if (!is_small && !schedule.lane_steps[lane].empty()) return;
  }
  const auto step_at = [&](std::size_t i) -> Step& {
    return schedule.steps[static_cast<std::size_t>(gpu[i])];
  };
  for (std::size_t i = 0; i + 1 < gpu.size(); ++i) step_at(i).joins_next = step_at(i + 1).num_waits == 0;
  const std::int64_t first = step_at(0).seq;
  for (const Step& step : schedule.steps) {
    for (const Wait& wait : step.wait_list()) {
      if (wait.lane == LaneKind::kGpu && wait.count >= first)
        step_at(static_cast<std::size_t>(wait.count - first)).joins_next = false;
    }
  }
}

/// Starts the transfers that items up to `limit` need, as soon as what they read has been emitted.
void ScheduleBuilder::prefetch(std::int64_t limit) {
  const std::int64_t num_items = num_units(shape_.spec) * num_batches_;
  while (next_load_ <= limit && next_load_ < num_items && backs_done_ > next_load_ - num_batches_) {
    if (runs(item(next_load_))) load_item(next_load_);
    ++next_load_;
  }
}

void ScheduleBuilder::load_item(std::int64_t index) {
  const Item it = item(index);
  const BatchPass& batch = batch_of(it);
  if (it.unit > shape_.spec.num_layers && batch.num_wanted == 0) return;
  load_activations(index);
  if (it.unit > shape_.spec.num_layers) return;
  take_kv_slots(index);
  const std::int16_t stage = stage_of(index);
  if (batch.read_kv_bytes > 0) {
    Step step = make(StepKind::kReadKv, LaneKind::kDiskRead, it);
    step.kv_stage = stage;
    step.bytes = batch.read_kv_bytes;
    emit(step, {kv_access(ResourceKind::kKvDisk, it, false), writes(ResourceKind::kKvStage, stage)});
  }
  if (batch.load_kv_bytes > 0) {
    Step step = make(StepKind::kLoadKv, LaneKind::kH2d, it);
    step.window = window_of(index);
    step.kv_stage = stage;
    step.bytes = batch.load_kv_bytes;
    AccessList accesses;
    accesses.add(kv_access(ResourceKind::kKvCpu, it, false));
    accesses.add_if(batch.read_kv_bytes > 0, reads(ResourceKind::kKvStage, stage));
    accesses.add(writes(ResourceKind::kWindow, step.window));
    emit(step, accesses.span());
  }
}

void ScheduleBuilder::take_kv_slots(std::int64_t index) {
  const BatchPass& batch = batch_of(item(index));
  const auto item_number = static_cast<std::size_t>(index);
  window_[item_number] = stage_[item_number] = -1;
  if (batch.window_pages > 0)
    window_[item_number] = static_cast<std::int16_t>(window_ring_++ % shape_.num_windows);
  if (batch.stage_pages > 0)
    stage_[item_number] = static_cast<std::int16_t>(stage_ring_++ % shape_.num_kv_stages);
}

void ScheduleBuilder::load_activations(std::int64_t index) {
  const Item it = item(index);
  auto& slot = act_slot_[static_cast<std::size_t>(index)];
  if (!rests_off_gpu(it.batch)) {
    slot = static_cast<std::int16_t>(shape_.activation_slot[static_cast<std::size_t>(it.batch)]);
    return;
  }
  const std::int64_t ring = shape_.num_activation_slots - shape_.first_ring_slot;
  slot = static_cast<std::int16_t>(shape_.first_ring_slot + act_ring_++ % ring);
  if (it.unit == 0) return;
  const int buffer = shape_.activation_buffer[static_cast<std::size_t>(it.batch)];
  const int file = shape_.activation_file[static_cast<std::size_t>(it.batch)];
  const std::int64_t row_bytes = shape_.spec.hidden_dim * shape_.act_bytes();
  Step step = make(StepKind::kLoadActivations, LaneKind::kH2d, it);
  step.act_slot = slot;
  step.bytes = batch_of(it).num_tokens * row_bytes;
  if (file >= 0) {
    Step read = make(StepKind::kReadActivations, LaneKind::kDiskRead, it);
    read.bytes = align_up(step.bytes, kPageAlign);
    emit(read, {reads(ResourceKind::kActFile, file), writes(ResourceKind::kActBuffer, buffer)});
  }
  emit(step, {reads(ResourceKind::kActBuffer, buffer), writes(ResourceKind::kActSlot, slot)});
}

void ScheduleBuilder::store_activations(std::int64_t index) {
  const Item it = item(index);
  if (!rests_off_gpu(it.batch)) return;
  const int buffer = shape_.activation_buffer[static_cast<std::size_t>(it.batch)];
  const int file = shape_.activation_file[static_cast<std::size_t>(it.batch)];
  const auto slot = act_slot_[static_cast<std::size_t>(index)];
  Step step = make(StepKind::kStoreActivations, LaneKind::kD2h, it);
  step.act_slot = slot;
  step.bytes = batch_of(it).num_tokens * shape_.spec.hidden_dim * shape_.act_bytes();
  emit(step, {reads(ResourceKind::kActSlot, slot), writes(ResourceKind::kActBuffer, buffer)});
  if (file >= 0) {
    Step write = make(StepKind::kWriteActivations, LaneKind::kDiskWrite, it);
    write.bytes = align_up(step.bytes, kPageAlign);
    emit(write, {reads(ResourceKind::kActBuffer, buffer), writes(ResourceKind::kActFile, file)});
  }
}

// ---- The halves of an item: front is everything up to attention, back everything after it.

void ScheduleBuilder::front(std::int64_t index) {
  const Item it = item(index);
  if (runs(it)) {
    if (it.unit == 0) {
      emit_embed(index);
    } else if (it.unit <= shape_.spec.num_layers) {
      emit_attention(index);
    }
  }
  if (it.unit == 0 && it.batch == num_batches_ - 1) release_stream(first_stream_);
}

void ScheduleBuilder::back(std::int64_t index) {
  const Item it = item(index);
  const bool is_layer = it.unit >= 1 && it.unit <= shape_.spec.num_layers;
  if (runs(it)) {
    if (is_layer) {
      Step step = make(StepKind::kPost, LaneKind::kGpu, it);
      step.set = static_cast<std::int16_t>(set_of(index));
      step.act_slot = act_slot_[static_cast<std::size_t>(index)];
      AccessList accesses;
      if (shape_.num_weight_slots > 0) {
        accesses.add(reads_weights(first_stream_ + it.unit));
        step.weight_slot = static_cast<std::int16_t>((first_stream_ + it.unit) % shape_.num_weight_slots);
      }
      accesses.add_if(batch_of(it).num_gpu_segments > 0, reads(ResourceKind::kSetAttnGpu, step.set));
      accesses.add_if(batch_of(it).num_cpu_rows > 0, reads(ResourceKind::kSetAttnCpu, step.set));
      accesses.add(writes(ResourceKind::kActSlot, step.act_slot));
      emit(step, accesses.span());
      store_activations(index);
    } else if (it.unit > shape_.spec.num_layers) {
      emit_head(index);
    }
  }
  if (is_layer && it.batch == num_batches_ - 1) release_stream(first_stream_ + it.unit);
  backs_done_ = index + 1;
}

void ScheduleBuilder::emit_embed(std::int64_t index) {
  const Item it = item(index);
  load_activations(index);
  Step step = make(StepKind::kEmbed, LaneKind::kGpu, it);
  step.act_slot = act_slot_[static_cast<std::size_t>(index)];
  AccessList accesses;
  accesses.add(reads(ResourceKind::kInputs, (pass_->number % 2) * num_batches_ + it.batch));
  if (shape_.num_weight_slots > 0) {
    fetch_stream(first_stream_);
    accesses.add(reads_weights(first_stream_));
    step.input_weight_slot = static_cast<std::int16_t>(first_stream_ % shape_.num_weight_slots);
  }
  accesses.add(writes(ResourceKind::kActSlot, step.act_slot));
  emit(step, accesses.span());
  store_activations(index);
}

void ScheduleBuilder::emit_attention(std::int64_t index) {
  const Item it = item(index);
  const BatchPass& batch = batch_of(it);
  Step step = make(StepKind::kPre, LaneKind::kGpu, it);
  step.set = static_cast<std::int16_t>(set_of(index));
  step.act_slot = act_slot_[static_cast<std::size_t>(index)];
  step.window = window_of(index);
  AccessList accesses;
  if (shape_.num_weight_slots > 0) {
    fetch_stream(first_stream_ + it.unit);
    accesses.add(reads_weights(first_stream_ + it.unit));
    step.weight_slot = static_cast<std::int16_t>((first_stream_ + it.unit) % shape_.num_weight_slots);
  }
  accesses.add(reads(ResourceKind::kActSlot, step.act_slot));
  accesses.add(writes(ResourceKind::kSetQkv, step.set));
  accesses.add_if(step.window >= 0, writes(ResourceKind::kWindow, step.window));
  emit(step, accesses.span());

  if (batch.num_cpu_rows > 0) emit_cpu_attention(index, step);
  if (batch.num_gpu_segments > 0) {
    Step attend = make(StepKind::kAttend, LaneKind::kGpu, it);
    attend.set = step.set;
    attend.window = step.window;
    AccessList attended;
    attended.add(reads(ResourceKind::kSetQkv, step.set));
    attended.add(writes(ResourceKind::kSetAttnGpu, step.set));
    attended.add_if(step.window >= 0, reads(ResourceKind::kWindow, step.window));
    emit(attend, attended.span());
  }
  if (batch.num_cpu_rows > 0) {
    Step send = make(StepKind::kSendAttention, LaneKind::kH2dUrgent, it);
    send.set = step.set;
    send.bytes = batch.num_cpu_rows * shape_.q_dim() * shape_.act_bytes();
    emit(send, {reads(ResourceKind::kTwinAttn, step.set), writes(ResourceKind::kSetAttnCpu, step.set)});
  }
  emit_kv_stores(index);
}

void ScheduleBuilder::emit_cpu_attention(std::int64_t index, Step pre) {
  const Item it = item(index);
  const BatchPass& batch = batch_of(it);
  Step send = make(StepKind::kSendQkv, LaneKind::kD2hUrgent, it);
  send.set = pre.set;
  send.bytes = batch.num_cpu_rows * (shape_.q_dim() + 2 * shape_.kv_dim()) * shape_.act_bytes();
  emit(send, {reads(ResourceKind::kSetQkv, pre.set), writes(ResourceKind::kTwinQkv, pre.set)});

  Step attend = make(StepKind::kAttend, LaneKind::kCpu, it);
  attend.set = pre.set;
  attend.kv_stage = stage_of(index);
  AccessList accesses;
  accesses.add(reads(ResourceKind::kTwinQkv, pre.set));
  accesses.add(writes(ResourceKind::kTwinAttn, pre.set));
  accesses.add(kv_access(ResourceKind::kKvCpu, it, true));
  accesses.add_if(attend.kv_stage >= 0, writes(ResourceKind::kKvStage, attend.kv_stage));
  emit(attend, accesses.span());
}

void ScheduleBuilder::emit_kv_stores(std::int64_t index) {
  const Item it = item(index);
  const BatchPass& batch = batch_of(it);
  const auto stage = stage_of(index);
  if (batch.store_kv_bytes > 0) {
    Step step = make(StepKind::kStoreKv, LaneKind::kD2h, it);
    step.window = window_of(index);
    step.kv_stage = batch.write_kv_bytes > 0 ? stage : std::int16_t{-1};
    step.bytes = batch.store_kv_bytes;
    AccessList accesses;
    accesses.add(reads(ResourceKind::kWindow, step.window));
    accesses.add(kv_access(ResourceKind::kKvCpu, it, true));
    accesses.add_if(step.kv_stage >= 0, writes(ResourceKind::kKvStage, stage));
    emit(step, accesses.span());
  }
  if (batch.write_kv_bytes > 0) {
    Step step = make(StepKind::kWriteKv, LaneKind::kDiskWrite, it);
    step.kv_stage = stage;
    step.bytes = batch.write_kv_bytes;
    emit(step, {reads(ResourceKind::kKvStage, stage), kv_access(ResourceKind::kKvDisk, it, true)});
  }
}

void ScheduleBuilder::emit_head(std::int64_t index) {
  const Item it = item(index);
  const BatchPass& batch = batch_of(it);
  if (batch.num_wanted == 0) return;
  Step step = make(StepKind::kHead, LaneKind::kGpu, it);
  step.act_slot = act_slot_[static_cast<std::size_t>(index)];
  AccessList accesses;
  const std::int64_t stream = first_stream_ + streams_per_pass_;
  if (shape_.num_weight_slots > 0) {
    fetch_stream(stream);
    accesses.add(reads_weights(stream));
    step.weight_slot = static_cast<std::int16_t>(stream % shape_.num_weight_slots);
  }
  accesses.add(reads(ResourceKind::kInputs, (pass_->number % 2) * num_batches_ + it.batch));
  accesses.add(reads(ResourceKind::kActSlot, step.act_slot));
  accesses.add(writes(ResourceKind::kResults, it.batch));
  emit(step, accesses.span());

  Step fetch = make(StepKind::kFetchResults, LaneKind::kD2hUrgent, it);
  fetch.bytes = batch.num_wanted * (shape_.traits.sampled_row_bytes +
                                    shape_.workload.max_top_logprobs * shape_.traits.top_token_bytes);
  emit(fetch, {reads(ResourceKind::kResults, it.batch)});
}

std::size_t ScheduleBuilder::max_steps() const {
  constexpr std::int64_t kStepsPerItem = 14;
  std::int64_t pieces = 0;
  for (const UnitStream& unit : shape_.units) pieces += shape_.num_pieces(unit);
  // Every piece is read and loaded once per pass; the prologue fills the slots and stages.
  const std::int64_t prologue = 2 * (shape_.num_weight_slots + shape_.num_weight_stages) * shape_.max_pieces;
  return static_cast<std::size_t>(num_units(shape_.spec) * num_batches_ * kStepsPerItem + 4 * pieces +
                                  prologue);
}

}  // namespace sluice::policy
