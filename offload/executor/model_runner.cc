#include "offload/executor/model_runner.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "kernels/device/planned_rows.h"
#include "kernels/layers/decoder.h"
#include "kernels/ops/expand.h"
#include "kernels/ops/gather_rows.h"

namespace sluice::offload {

using policy::BatchPass;
using policy::Purpose;
using policy::Segment;
using policy::Step;
using policy::StepKind;

namespace {

/// Rows of an MLP chunk on CUDA: enough for the tensor cores, and 28672 columns of them are 117 MB.
constexpr std::int64_t kCudaMlpRows = 2048;

}  // namespace

policy::DeviceTraits ModelRunner::traits(const WeightSource& weights, kernels::DeviceKind device) {
  const ModelSpec& spec = weights.spec();
  policy::DeviceTraits traits;
  traits.workspace_bytes = kernels::workspace_bytes(device);
  for (const SourceTensor& tensor : weights.tensors()) {
    traits.expanded_bytes = std::max(
        traits.expanded_bytes, kernels::expansion_bytes(tensor.format, tensor.spec.rows, tensor.spec.cols));
  }
  if (device == kernels::DeviceKind::kCuda) {
    traits.activation_dtype = spec.weight_dtype == DType::kBF16 ? DType::kBF16 : DType::kF16;
    traits.mlp_rows = kCudaMlpRows;
  }
  traits.sample_scratch_bytes = kernels::sample_scratch_bytes(traits.logits_rows, spec.vocab_size);
  traits.sample_row_bytes = sizeof(kernels::SampleRow);
  traits.sampled_row_bytes = sizeof(kernels::SampledRow);
  traits.top_token_bytes = sizeof(ScoredToken);
  return traits;
}

ModelRunner::ModelRunner(const policy::RunShape& shape, const TierMemory& memory, WeightStore& weights,
                         KvCache& kv, kernels::Device& device, kernels::ThreadPool& pool,
                         std::int64_t valid_vocab, Poison poison)
    : shape_(shape),
      memory_(memory),
      weights_(weights),
      kv_(kv),
      valid_vocab_(valid_vocab),
      poison_(poison),
      scratch_layout_(policy::scratch_layout(shape)),
      gpu_set_layout_(policy::set_layout(shape, shape.max_tokens)),
      cpu_set_layout_(policy::set_layout(shape, shape.max_cpu_rows)),
      input_layout_(policy::input_layout(shape)),
      result_layout_(policy::result_layout(shape)) {
  using policy::LaneKind;
  for (const LaneKind lane : {LaneKind::kH2d, LaneKind::kD2h})
    streams_[lane_index(lane)] = device.make_stream(kernels::StreamPriority::kBulk, {});
  for (const LaneKind lane : {LaneKind::kH2dUrgent, LaneKind::kD2hUrgent})
    streams_[lane_index(lane)] = device.make_stream(kernels::StreamPriority::kUrgent, {});
  auto& gpu = streams_[lane_index(LaneKind::kGpu)];
  gpu = device.make_stream(
      kernels::StreamPriority::kBulk,
      {scratch(scratch_layout_.workspace), static_cast<std::size_t>(shape.traits.workspace_bytes)});
  gpu->restrict_operands(memory.arena(Tier::kGpu));
  auto& cpu = streams_[lane_index(LaneKind::kCpu)];
  cpu = std::make_unique<kernels::Stream>(pool);
  cpu->restrict_operands(memory.arena(Tier::kCpu));
  for (PageTables* tables : {&gpu_tables_, &cpu_tables_}) {
    tables->pages.reserve(static_cast<std::size_t>(shape.placement.gpu_batch_size * shape.pages_per_seat));
    tables->segments.reserve(static_cast<std::size_t>(shape.placement.gpu_batch_size));
  }
}

void ModelRunner::open_file(BlockIo& disk_read, BlockIo& disk_write) {
  const ScratchFile* file = memory_.file(Purpose::kActivations);
  if (file == nullptr) return;
  write_file_ = disk_write.open(file->path(), FileMode::kReadWriteCreate);
  read_file_ = disk_read.open(file->path(), FileMode::kRead);
}

// ---- Start.

void ModelRunner::warm_up() {
  kernels::Stream& stream = *streams_[lane_index(policy::LaneKind::kGpu)];
  if (!stream.asynchronous()) return;
  // CUDA loads a kernel at its first launch: those of the layers and the head now, the few others (embedding,
  // attention, sampling) in the first pass.
  const std::int64_t head_rows = std::min(shape_.traits.logits_rows, shape_.max_result_rows);
  for (std::int64_t rows = 1; rows <= shape_.max_tokens; rows = kernels::planned_rows(rows + 1)) {
    warm_up_layer(rows);
    if (rows <= head_rows) warm_up_head(rows);
  }
  warm_up_layer(shape_.max_tokens);
  stream.synchronize();
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

// ---- Addresses.

MatrixView ModelRunner::activations(const Step& step, std::int64_t rows) const {
  const std::int64_t hidden = shape_.spec.hidden_dim;
  return {memory_.block(Purpose::kActivations, Tier::kGpu).data() + step.act_slot * shape_.activation_bytes,
          shape_.traits.activation_dtype, rows, hidden, hidden};
}

std::byte* ModelRunner::activation_buffer(const Step& step) const {
  return memory_.block(Purpose::kActivations, Tier::kCpu).data() +
         shape_.activation_buffer[static_cast<std::size_t>(step.gpu_batch)] * shape_.activation_bytes;
}

ModelRunner::Set ModelRunner::set_at(std::byte* base, const policy::SetLayout& layout,
                                     std::int64_t rows) const {
  const auto matrix = [&](std::int64_t offset, std::int64_t cols) {
    return MatrixView{base + offset, shape_.traits.activation_dtype, rows, cols, cols};
  };
  return {matrix(layout.q, shape_.q_dim()), matrix(layout.k, shape_.kv_dim()),
          matrix(layout.v, shape_.kv_dim()), matrix(layout.attn, shape_.q_dim())};
}

ModelRunner::Set ModelRunner::gpu_set(std::int64_t index, std::int64_t rows) const {
  return set_at(memory_.block(Purpose::kSets, Tier::kGpu).data() + index * gpu_set_layout_.total,
                gpu_set_layout_, rows);
}

ModelRunner::Set ModelRunner::cpu_set(std::int64_t index, std::int64_t rows) const {
  return set_at(memory_.block(Purpose::kSets, Tier::kCpu).data() + index * cpu_set_layout_.total,
                cpu_set_layout_, rows);
}

BatchInputs ModelRunner::inputs_in(Tier tier, std::int32_t pass, std::int64_t gpu_batch) const {
  std::byte* base = memory_.block(Purpose::kInputs, tier).data() +
                    (pass % 2 * shape_.placement.num_gpu_batches + gpu_batch) * input_layout_.total;
  const auto tokens = static_cast<std::size_t>(shape_.max_tokens);
  const auto wanted = static_cast<std::size_t>(shape_.max_result_rows);
  return {{reinterpret_cast<std::int32_t*>(base + input_layout_.ids), tokens},
          {reinterpret_cast<std::int32_t*>(base + input_layout_.positions), tokens},
          {reinterpret_cast<std::int32_t*>(base + input_layout_.wanted_rows), wanted},
          {reinterpret_cast<kernels::SampleRow*>(base + input_layout_.sample_rows), wanted}};
}

BatchInputs ModelRunner::inputs(std::int32_t pass, std::int64_t gpu_batch) const {
  return inputs_in(Tier::kCpu, pass, gpu_batch);
}

std::byte* ModelRunner::results_in(Tier tier, std::int64_t gpu_batch) const {
  return memory_.block(Purpose::kResults, tier).data() + gpu_batch * result_layout_.total;
}

BatchResults ModelRunner::results(std::int64_t gpu_batch) const {
  const std::byte* base = results_in(Tier::kCpu, gpu_batch);
  const std::int64_t max_top = shape_.workload.max_top_logprobs;
  return {{reinterpret_cast<const kernels::SampledRow*>(base + result_layout_.rows),
           static_cast<std::size_t>(shape_.max_result_rows)},
          {reinterpret_cast<const ScoredToken*>(base + result_layout_.top), shape_.max_result_rows, max_top,
           max_top}};
}

std::byte* ModelRunner::scratch(std::int64_t offset) const {
  return memory_.block(Purpose::kScratch, Tier::kGpu).data() + offset;
}

std::span<std::byte> ModelRunner::expanded() const {
  return {scratch(scratch_layout_.expanded), static_cast<std::size_t>(shape_.traits.expanded_bytes)};
}

MatrixView ModelRunner::scratch_matrix(std::int64_t offset, std::int64_t rows, std::int64_t cols,
                                       DType dtype) const {
  return {scratch(offset), dtype, rows, cols, cols};
}

void ModelRunner::poison(std::span<std::byte> memory, kernels::Stream& stream) const {
  // All bits set is NaN in fp32, fp16 and bf16 alike.
  if (poison_ == Poison::kOn) stream.fill(memory, std::byte{0xFF});
}

// ---- Dispatch.

std::int64_t ModelRunner::run(const Step& step) {
  const std::int64_t row_bytes = shape_.spec.hidden_dim * shape_.act_bytes();
  switch (step.kind) {
    case StepKind::kLoadWeights:
      if (step.piece == 0) poison(weights_.slot(step.weight_slot), stream_of(step));
      return weights_.load_piece(step.unit, step.piece, step.weight_slot, step.stage_slot, stream_of(step));
    case StepKind::kLoadInputs:
      return load_inputs(step);
    case StepKind::kLoadActivations: {
      const std::int64_t bytes = batch_of(step).num_tokens * row_bytes;
      std::byte* slot = activations(step, 1).data;
      poison({slot, static_cast<std::size_t>(shape_.activation_bytes)}, stream_of(step));
      stream_of(step).copy(slot, activation_buffer(step), bytes);
      return bytes;
    }
    case StepKind::kStoreActivations: {
      const std::int64_t bytes = batch_of(step).num_tokens * row_bytes;
      stream_of(step).copy(activation_buffer(step), activations(step, 1).data, bytes);
      return bytes;
    }
    case StepKind::kLoadKv:
      poison(kv_.window(step.window), stream_of(step));
      return kv_.load(pass_of(step), step.unit, step.gpu_batch, step.window, step.kv_stage, stream_of(step));
    case StepKind::kStoreKv:
      return kv_.store(pass_of(step), step.unit, step.gpu_batch, step.window, step.kv_stage, stream_of(step));
    case StepKind::kEmbed:
      embed(step);
      return 0;
    case StepKind::kPre:
      pre(step);
      return 0;
    case StepKind::kAttend:
      step.lane == policy::LaneKind::kGpu ? attend_gpu(step) : attend_cpu(step);
      return 0;
    case StepKind::kSendQkv:
      return send_qkv(step);
    case StepKind::kSendAttention:
      return send_attention(step);
    case StepKind::kPost:
      post(step);
      return 0;
    case StepKind::kHead:
      head(step);
      return 0;
    case StepKind::kFetchResults:
      return fetch_results(step);
    case StepKind::kReadWeights:
    case StepKind::kReadActivations:
    case StepKind::kReadKv:
    case StepKind::kWriteKv:
    case StepKind::kWriteActivations:
      break;  // io_requests
  }
  throw Error(Code::kInternal,
              fmt::format("step {} on lane {}", step_kind_name(step.kind), lane_name(step.lane)),
              "please report this with the command line");
}

void ModelRunner::io_requests(const Step& step, std::vector<IoRequest>& out) {
  const auto activation_request = [&](IoOp op, FileId file) {
    const std::int64_t bytes =
        align_up(batch_of(step).num_tokens * shape_.spec.hidden_dim * shape_.act_bytes(), kPageAlign);
    const std::int64_t offset =
        shape_.activation_file[static_cast<std::size_t>(step.gpu_batch)] * shape_.activation_bytes;
    out.push_back(
        {.op = op, .file = file, .offset = offset, .data = activation_buffer(step), .bytes = bytes});
  };
  switch (step.kind) {
    case StepKind::kReadWeights:
      return weights_.read_requests(step.unit, step.piece, step.stage_slot, out);
    case StepKind::kReadKv:
      poison(kv_.stage(step.kv_stage), *streams_[lane_index(policy::LaneKind::kCpu)]);
      return kv_.read_requests(pass_of(step), step.unit, step.gpu_batch, step.kv_stage, out);
    case StepKind::kWriteKv:
      return kv_.write_requests(pass_of(step), step.unit, step.gpu_batch, step.kv_stage, out);
    case StepKind::kReadActivations:
      return activation_request(IoOp::kRead, read_file_);
    case StepKind::kWriteActivations:
      return activation_request(IoOp::kWrite, write_file_);
    default:
      throw Error(Code::kInternal, fmt::format("step {} on a disk lane", step_kind_name(step.kind)),
                  "please report this with the command line");
  }
}

// ---- Transfers of inputs, CPU-attended rows and results.

std::int64_t ModelRunner::load_inputs(const Step& step) {
  const BatchPass& batch = batch_of(step);
  const BatchInputs from = inputs_in(Tier::kCpu, step.pass, step.gpu_batch);
  const BatchInputs to = inputs_in(Tier::kGpu, step.pass, step.gpu_batch);
  kernels::Stream& stream = stream_of(step);
  std::int64_t bytes = 0;
  const auto copy = [&](const auto& to_span, const auto& from_span, std::int64_t count) {
    const auto size = count * static_cast<std::int64_t>(sizeof(from_span[0]));
    stream.copy(std::as_writable_bytes(to_span).data(), std::as_bytes(from_span).data(), size);
    bytes += size;
  };
  copy(to.ids, from.ids, batch.num_tokens);
  copy(to.position_rows, from.position_rows, batch.num_tokens);
  copy(to.wanted_rows, from.wanted_rows, batch.num_wanted);
  copy(to.sample_rows, from.sample_rows, batch.num_wanted);
  return bytes;
}

namespace {

/// Calls visit(segment) for the batch's segments on one side.
template <class Visit>
void for_side(const policy::Pass& pass, const BatchPass& batch, bool on_cpu, Visit visit) {
  for (std::int32_t i = 0; i < batch.num_segments; ++i) {
    const Segment& segment = pass.segments[static_cast<std::size_t>(batch.first_segment + i)];
    if (segment.on_cpu == on_cpu) visit(segment);
  }
}

}  // namespace

namespace {

/// Calls visit(row of the batch, row of the CPU twin, number of rows) for the CPU-attended rows, rows that
/// follow one another on both sides together.
template <class Visit>
void for_cpu_runs(const policy::Pass& pass, const BatchPass& batch, Visit visit) {
  std::int64_t row = 0;
  std::int64_t cpu_row = 0;
  std::int64_t rows = 0;
  for_side(pass, batch, /*on_cpu=*/true, [&](const Segment& segment) {
    if (rows > 0 && segment.first_row == row + rows && segment.cpu_row == cpu_row + rows) {
      rows += segment.num_tokens;
      return;
    }
    if (rows > 0) visit(row, cpu_row, rows);
    row = segment.first_row;
    cpu_row = segment.cpu_row;
    rows = segment.num_tokens;
  });
  if (rows > 0) visit(row, cpu_row, rows);
}

/// Copies rows between contiguous matrices of one shape; returns the bytes.
std::int64_t copy_rows(const MatrixView& to, std::int64_t to_row, const MatrixView& from,
                       std::int64_t from_row, std::int64_t rows, kernels::Stream& stream) {
  const std::int64_t row_bytes = from.cols * dtype_bytes(from.dtype);
  stream.copy(to.data + to_row * row_bytes, from.data + from_row * row_bytes, rows * row_bytes);
  return rows * row_bytes;
}

}  // namespace

std::int64_t ModelRunner::send_qkv(const Step& step) {
  const Set from = gpu_set(step.set, shape_.max_tokens);
  const Set to = cpu_set(step.set, shape_.max_cpu_rows);
  kernels::Stream& stream = stream_of(step);
  std::int64_t bytes = 0;
  for_cpu_runs(pass_of(step), batch_of(step), [&](std::int64_t row, std::int64_t cpu_row, std::int64_t rows) {
    bytes += copy_rows(to.q, cpu_row, from.q, row, rows, stream);
    bytes += copy_rows(to.k, cpu_row, from.k, row, rows, stream);
    bytes += copy_rows(to.v, cpu_row, from.v, row, rows, stream);
  });
  return bytes;
}

std::int64_t ModelRunner::send_attention(const Step& step) {
  const Set from = cpu_set(step.set, shape_.max_cpu_rows);
  const Set to = gpu_set(step.set, shape_.max_tokens);
  std::int64_t bytes = 0;
  for_cpu_runs(pass_of(step), batch_of(step), [&](std::int64_t row, std::int64_t cpu_row, std::int64_t rows) {
    bytes += copy_rows(to.attn, row, from.attn, cpu_row, rows, stream_of(step));
  });
  return bytes;
}

std::int64_t ModelRunner::fetch_results(const Step& step) {
  const std::int64_t wanted = batch_of(step).num_wanted;
  const std::byte* from = results_in(Tier::kGpu, step.gpu_batch);
  std::byte* to = results_in(Tier::kCpu, step.gpu_batch);
  const std::int64_t rows = wanted * shape_.traits.sampled_row_bytes;
  const std::int64_t top = wanted * shape_.workload.max_top_logprobs * shape_.traits.top_token_bytes;
  stream_of(step).copy(to + result_layout_.rows, from + result_layout_.rows, rows);
  stream_of(step).copy(to + result_layout_.top, from + result_layout_.top, top);
  return rows + top;
}

// ---- Computations.

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
  for_side(pass_of(step), batch_of(step), on_cpu, [&](const Segment& segment) {
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
