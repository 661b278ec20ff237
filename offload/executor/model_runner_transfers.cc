// Transfers of inputs, of CPU-attended rows and of results. Weights and KV are moved by their own classes.
#include "offload/executor/model_runner.h"
#include "offload/executor/segments_of_side.h"

namespace sluice::offload {

using policy::BatchPass;
using policy::Segment;
using policy::Step;

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

/// Calls visit(row of the batch, row of the CPU twin, number of rows) for the CPU-attended rows, rows that
/// follow one another on both sides together.
template <class Visit>
void for_cpu_runs(const policy::Pass& pass, const BatchPass& batch, Visit visit) {
  std::int64_t row = 0;
  std::int64_t cpu_row = 0;
  std::int64_t rows = 0;
  detail::for_side(pass, batch, /*on_cpu=*/true, [&](const Segment& segment) {
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

}  // namespace sluice::offload
