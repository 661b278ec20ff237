// The operators that each computing step calls, and their first calls before a run.
#include <algorithm>
#include <cmath>

#include "kernels/device/planned_rows.h"
#include "kernels/layers/decoder.h"
#include "kernels/ops/gather_rows.h"
#include "offload/executor/model_runner.h"
#include "offload/executor/segments_of_side.h"

namespace sluice::offload {

using policy::BatchPass;
using policy::Segment;
using policy::Step;

// ---- Start.

void ModelRunner::warm_up() {
  kernels::Stream& stream = *streams_[lane_index(policy::LaneKind::kGpu)];
  if (!stream.asynchronous()) return;
  // CUDA loads a kernel at its first launch: those of the layers and the head now, the few others (embedding,
  // attention, sampling) in the first pass.
  const bool has_layer = load_layer_to_warm_up();
  const std::int64_t head_rows = std::min(shape_.traits.logits_rows, shape_.max_result_rows);
  for (std::int64_t rows = 1; rows <= shape_.max_tokens; rows = kernels::planned_rows(rows + 1)) {
    if (has_layer) warm_up_layer(rows);
    if (rows <= head_rows) warm_up_head(rows);
  }
  if (has_layer) warm_up_layer(shape_.max_tokens);
  stream.synchronize();
}

/// Dense weights may be any bytes, encoded ones must be a matrix: what rests in CPU memory is brought to the
/// slot. False if that is not all of the layer.
bool ModelRunner::load_layer_to_warm_up() {
  const kernels::DecoderWeights weights = weights_.decoder(/*unit=*/1, /*weight_slot=*/0);
  const auto matrices = {&weights.q, &weights.k, &weights.v, &weights.out, &weights.fc1, &weights.fc2};
  if (std::ranges::all_of(matrices, [](const kernels::LinearWeights* linear) {
        return linear->weight.format.encoding == Encoding::kDense;
      }))
    return true;
  const policy::UnitStream& unit = shape_.units[1];
  if (unit.disk_bytes > 0) return false;
  weights_.copy_resident(1, /*weight_slot=*/0, *streams_[lane_index(policy::LaneKind::kGpu)]);
  return true;
}

void ModelRunner::warm_up_layer(std::int64_t rows) {
  kernels::Stream& stream = *streams_[lane_index(policy::LaneKind::kGpu)];
  Step step;
  step.act_slot = 0;
  const Set set = gpu_set(0, rows);
  const MatrixView x = activations(step, rows);
  const MatrixView normed = scratch_matrix(scratch_layout_.normed, rows, shape_.spec.hidden_dim, x.dtype);
  const kernels::DecoderWeights weights = weights_.decoder(/*unit=*/1, /*weight_slot=*/0);
  kernels::run_pre({.spec = &shape_.spec,
                    .weights = &weights,
                    .x = as_const(x),
                    .normed = normed,
                    .q = set.q,
                    .k = set.k,
                    .v = set.v,
                    .expanded = expanded()},
                   stream);
  kernels::run_post({.spec = &shape_.spec,
                     .weights = &weights,
                     .attn = as_const(set.attn),
                     .x = x,
                     .normed = normed,
                     .hidden = scratch_matrix(scratch_layout_.hidden, std::min(shape_.traits.mlp_rows, rows),
                                              shape_.spec.ffn_dim, x.dtype),
                     .expanded = expanded()},
                    stream);
}

void ModelRunner::warm_up_head(std::int64_t rows) {
  kernels::Stream& stream = *streams_[lane_index(policy::LaneKind::kGpu)];
  const DType dtype = shape_.traits.activation_dtype;
  const std::int64_t hidden = shape_.spec.hidden_dim;
  const kernels::OutputWeights weights = weights_.output(/*weight_slot=*/0);
  kernels::run_output(
      {.spec = &shape_.spec,
       .weights = &weights,
       .x = as_const(scratch_matrix(scratch_layout_.rows, rows, hidden, dtype)),
       .normed = scratch_matrix(scratch_layout_.head_normed, rows, hidden, dtype),
       .projected = scratch_matrix(scratch_layout_.projected, rows, shape_.spec.embed_dim, dtype),
       .logits = scratch_matrix(scratch_layout_.logits, rows, shape_.spec.vocab_size, DType::kF32)},
      stream);
}

// ---- Steps.

void ModelRunner::embed(const Step& step) {
  const std::int64_t rows = batch_of(step).num_tokens;
  const BatchInputs in = inputs_in(Tier::kGpu, step.pass, step.gpu_batch);
  const kernels::InputWeights weights = weights_.input(step.input_weight_slot);
  const MatrixView x = activations(step, rows);
  poison({x.data, static_cast<std::size_t>(shape_.activation_bytes)}, stream_of(step));
  const std::int64_t embed_dim = shape_.spec.embed_dim;
  kernels::run_input({.spec = &shape_.spec,
                      .weights = &weights,
                      .ids = in.ids.first(static_cast<std::size_t>(rows)),
                      .position_rows = in.position_rows.first(static_cast<std::size_t>(rows)),
                      .embedded = scratch_matrix(scratch_layout_.embedded, rows, embed_dim, x.dtype),
                      .x = x},
                     stream_of(step));
}

/// The page tables of the batch's segments on one side. CPU-attended rows are numbered in the CPU set.
void ModelRunner::fill_tables(const Step& step, bool on_cpu, std::int64_t slot, PageTables& tables) const {
  tables.pages.clear();
  tables.segments.clear();
  detail::for_side(pass_of(step), batch_of(step), on_cpu, [&](const Segment& segment) {
    const std::byte* const* pages = tables.pages.data() + tables.pages.size();
    kv_.append_pages(segment, step.unit, slot, tables.pages);
    tables.segments.push_back(
        {.pages = pages,
         .first_kv = segment.first_kv,
         .first_row = on_cpu ? segment.cpu_row : segment.first_row,
         .num_rows = segment.num_tokens,
         .full_prefix = segment.full_prefix,
         .kind = segment.decode ? kernels::SegmentKind::kDecode : kernels::SegmentKind::kPrompt});
  });
}

void ModelRunner::pre(const Step& step) {
  const BatchPass& batch = batch_of(step);
  const std::int64_t rows = batch.num_tokens;
  const Set set = gpu_set(step.set, rows);
  const kernels::DecoderWeights weights = weights_.decoder(step.unit, step.weight_slot);
  poison({set.q.data, static_cast<std::size_t>(gpu_set_layout_.total)}, stream_of(step));
  if (step.window >= 0 && batch.load_kv_bytes == 0) poison(kv_.window(step.window), stream_of(step));
  kernels::run_pre(
      {.spec = &shape_.spec,
       .weights = &weights,
       .x = as_const(activations(step, rows)),
       .normed = scratch_matrix(scratch_layout_.normed, rows, shape_.spec.hidden_dim, set.q.dtype),
       .q = set.q,
       .k = set.k,
       .v = set.v,
       .expanded = expanded()},
      stream_of(step));
  if (batch.num_gpu_segments == 0) return;
  fill_tables(step, /*on_cpu=*/false, step.window, gpu_tables_);
  kernels::kv_write(
      {.k = as_const(set.k), .v = as_const(set.v), .segments = gpu_tables_.segments, .layout = shape_.kv},
      stream_of(step));
}

void ModelRunner::attend_gpu(const Step& step) {
  const Set set = gpu_set(step.set, batch_of(step).num_tokens);
  fill_tables(step, /*on_cpu=*/false, step.window, gpu_tables_);
  kernels::attention({.q = as_const(set.q),
                      .segments = gpu_tables_.segments,
                      .layout = shape_.kv,
                      .num_heads = shape_.spec.num_heads,
                      .scale = 1.0F / std::sqrt(static_cast<float>(shape_.spec.head_dim)),
                      .out = set.attn},
                     stream_of(step));
}

void ModelRunner::attend_cpu(const Step& step) {
  const Set set = cpu_set(step.set, batch_of(step).num_cpu_rows);
  fill_tables(step, /*on_cpu=*/true, step.kv_stage, cpu_tables_);
  kernels::kv_write(
      {.k = as_const(set.k), .v = as_const(set.v), .segments = cpu_tables_.segments, .layout = shape_.kv},
      stream_of(step));
  kernels::attention({.q = as_const(set.q),
                      .segments = cpu_tables_.segments,
                      .layout = shape_.kv,
                      .num_heads = shape_.spec.num_heads,
                      .scale = 1.0F / std::sqrt(static_cast<float>(shape_.spec.head_dim)),
                      .out = set.attn},
                     stream_of(step));
}

void ModelRunner::post(const Step& step) {
  const std::int64_t rows = batch_of(step).num_tokens;
  const Set set = gpu_set(step.set, rows);
  const kernels::DecoderWeights weights = weights_.decoder(step.unit, step.weight_slot);
  const std::int64_t chunk = std::min(shape_.traits.mlp_rows, rows);
  kernels::run_post(
      {.spec = &shape_.spec,
       .weights = &weights,
       .attn = as_const(set.attn),
       .x = activations(step, rows),
       .normed = scratch_matrix(scratch_layout_.normed, rows, shape_.spec.hidden_dim, set.q.dtype),
       .hidden = scratch_matrix(scratch_layout_.hidden, chunk, shape_.spec.ffn_dim, set.q.dtype),
       .expanded = expanded()},
      stream_of(step));
}

void ModelRunner::head(const Step& step) {
  const BatchPass& batch = batch_of(step);
  const BatchInputs in = inputs_in(Tier::kGpu, step.pass, step.gpu_batch);
  const kernels::OutputWeights weights = weights_.output(step.weight_slot);
  const MatrixView x = activations(step, batch.num_tokens);
  std::byte* results = results_in(Tier::kGpu, step.gpu_batch);
  auto* const sampled = reinterpret_cast<kernels::SampledRow*>(results + result_layout_.rows);
  auto* const top = reinterpret_cast<ScoredToken*>(results + result_layout_.top);
  const std::int64_t max_top = shape_.workload.max_top_logprobs;
  const std::int64_t hidden = shape_.spec.hidden_dim;
  const std::int64_t chunk_rows = std::min(shape_.traits.logits_rows, shape_.max_result_rows);
  for (std::int64_t first = 0; first < batch.num_wanted; first += chunk_rows) {
    const std::int64_t rows = std::min<std::int64_t>(chunk_rows, batch.num_wanted - first);
    const MatrixView gathered = scratch_matrix(scratch_layout_.rows, rows, hidden, x.dtype);
    kernels::gather_rows(
        {.x = as_const(x),
         .rows = in.wanted_rows.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(rows)),
         .y = gathered},
        stream_of(step));
    const MatrixView logits =
        scratch_matrix(scratch_layout_.logits, rows, shape_.spec.vocab_size, DType::kF32);
    kernels::run_output(
        {.spec = &shape_.spec,
         .weights = &weights,
         .x = as_const(gathered),
         .normed = scratch_matrix(scratch_layout_.head_normed, rows, hidden, x.dtype),
         .projected = scratch_matrix(scratch_layout_.projected, rows, shape_.spec.embed_dim, x.dtype),
         .logits = logits},
        stream_of(step));
    kernels::sample(
        {.logits = as_const(logits),
         .valid_vocab = valid_vocab_,
         .rows = in.sample_rows.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(rows)),
         .results = {sampled + first, static_cast<std::size_t>(rows)},
         .top = {top + first * max_top, rows, max_top, max_top},
         .scratch = {scratch(scratch_layout_.sample),
                     static_cast<std::size_t>(shape_.traits.sample_scratch_bytes)}},
        stream_of(step));
  }
}

}  // namespace sluice::offload
