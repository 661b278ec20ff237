#include "kernels/ops/sample.h"

#include <cmath>

#include "core/build_config.h"
#include "core/error.h"
#include "core/sampling/softmax_weight.h"
#include "kernels/ops/cpu_kernels.h"
#include "kernels/ops/cuda_kernels.h"
#include "kernels/ops/operands.h"

namespace sluice::kernels {
namespace {

/// One row: see SampleArgs. `scratch` has one entry per column.
void sample_row(const SampleArgs& args, std::size_t row, std::span<const float> logits,
                std::span<ScoredToken> scratch) {
  const SampleRow& wanted = args.rows[row];
  SampledRow& result = args.results[row];
  result = {};
  const detail::LogitSummary summary = detail::summarize_logits_cpu(logits);
  SLUICE_CHECK(!std::isnan(summary.max), Code::kInternal, fmt::format("NaN among the logits of row {}", row),
               "check the weights of the model for NaN and overflow");
  const auto logprob = [&](float logit) { return static_cast<float>(logit - summary.log_sum_exp); };

  if (wanted.choose) {
    result.token_id = choose_token(logits, wanted.params, wanted.draw, scratch);
    result.token_logprob = logprob(logits[static_cast<std::size_t>(result.token_id)]);
  }
  if (wanted.target_id >= 0) {
    SLUICE_CHECK(wanted.target_id < args.valid_vocab, Code::kInternal,
                 fmt::format("row {} asks for token {} of {}", row, wanted.target_id, args.valid_vocab),
                 "ids are validated when a request is submitted: please report this with the request");
    result.target_logprob = logprob(logits[static_cast<std::size_t>(wanted.target_id)]);
  }
  if (wanted.num_top > 0) {
    const std::span<ScoredToken> top =
        args.top.row(static_cast<std::int64_t>(row)).first(static_cast<std::size_t>(wanted.num_top));
    top_tokens(logits, top, scratch);
    for (ScoredToken& token : top) token.logit = logprob(token.logit);
  }
}

}  // namespace

std::int64_t sample_scratch_bytes(std::int64_t num_rows, std::int64_t vocab_size) {
  return num_rows * vocab_size * static_cast<std::int64_t>(sizeof(ScoredToken));
}

std::string why_unsupported(const SampleArgs& args, DeviceKind kind) {
  return why_not_logits("logits", args.logits.dtype, kind);
}

void sample(const SampleArgs& args, Stream& stream) {
  refuse_unless_empty("sample", why_unsupported(args, stream.kind()));
  const std::int64_t num_rows = args.logits.rows;
  SLUICE_ASSERT(static_cast<std::int64_t>(args.rows.size()) == num_rows &&
                args.results.size() == args.rows.size());
  SLUICE_ASSERT(args.valid_vocab > 0 && args.valid_vocab <= args.logits.cols);
  SLUICE_CHECK(
      static_cast<std::int64_t>(args.scratch.size()) >= sample_scratch_bytes(num_rows, args.logits.cols),
      Code::kInternal,
      fmt::format("scratch has {} bytes, needs {}", args.scratch.size(),
                  sample_scratch_bytes(num_rows, args.logits.cols)),
      "please report this with the command line");
  SLUICE_ASSERT(args.valid_vocab <= kMaxSampledTokens);
  SLUICE_ASSERT(reinterpret_cast<std::uintptr_t>(args.scratch.data()) % alignof(std::uint64_t) == 0);
  check_operand(stream, args.logits);
  check_operand(stream, args.scratch.data(), static_cast<std::int64_t>(args.scratch.size()));
  if constexpr (kWithCuda) {
    if (stream.kind() == DeviceKind::kCuda) return detail::sample_cuda(args, stream);
  }
  for (const SampleRow& row : args.rows) {
    SLUICE_ASSERT(row.num_top <= 0 || (row.num_top <= args.top.cols && row.num_top <= args.valid_vocab &&
                                       args.top.rows == num_rows));
  }

  const auto* logits = reinterpret_cast<const float*>(args.logits.data);
  auto* scratch = reinterpret_cast<ScoredToken*>(args.scratch.data());
  stream.pool().parallel_for(num_rows, 1, [&](std::int64_t row, std::int64_t) {
    sample_row(args, static_cast<std::size_t>(row),
               {logits + row * args.logits.stride, static_cast<std::size_t>(args.valid_vocab)},
               {scratch + row * args.logits.cols, static_cast<std::size_t>(args.valid_vocab)});
  });
}

}  // namespace sluice::kernels
