// Where the inputs, activations, sets, scratch and results of a step lie.
#include "offload/executor/model_runner.h"

namespace sluice::offload {

using policy::Purpose;
using policy::Step;

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

}  // namespace sluice::offload
