#include "offload/executor/model_runner.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/ops/expand.h"

namespace sluice::offload {

using policy::Purpose;
using policy::Step;
using policy::StepKind;

namespace {

/// Rows of an MLP chunk on CUDA: enough for the tensor cores, and 28672 columns of them are 117 MB.
constexpr std::int64_t kCudaMlpRows = 2048;
constexpr std::int64_t kWeightSlabs = 4;  // one is filled while the device copies from others

}  // namespace

policy::DeviceTraits ModelRunner::traits(const WeightSource& weights, kernels::DeviceKind device,
                                         HostWeights host_weights) {
  const ModelSpec& spec = weights.spec();
  policy::DeviceTraits traits;
  traits.workspace_bytes = kernels::workspace_bytes(device);
  for (const SourceTensor& tensor : weights.tensors()) {
    traits.expanded_bytes =
        std::max(traits.expanded_bytes,
                 kernels::expansion_bytes(tensor.format, tensor.spec.rows, tensor.spec.cols, device));
  }
  if (device == kernels::DeviceKind::kCuda) {
    traits.activation_dtype = spec.weight_dtype == DType::kBF16 ? DType::kBF16 : DType::kF16;
    traits.mlp_rows = kCudaMlpRows;
    if (host_weights == HostWeights::kPageable) traits.num_weight_slabs = kWeightSlabs;
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

// ---- Dispatch.

std::int64_t ModelRunner::run(const Step& step) {
  const std::int64_t row_bytes = shape_.spec.hidden_dim * shape_.act_bytes();
  switch (step.kind) {
    case StepKind::kLoadWeights:
      if (step.piece == 0) poison(weights_.slot(step.weight_slot), stream_of(step));
      return weights_.load_piece(step.unit, step.piece, step.weight_slot, step.stage_slot, step.seq,
                                 stream_of(step));
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

}  // namespace sluice::offload
