// Token choice and log-probabilities from rows of logits: the contract. No device types.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/matrix.h"
#include "core/sampling/sampling.h"
#include "kernels/device/stream.h"

namespace sluice::kernels {

/// The token_id of a row of which no token can be chosen; see SampleArgs.
inline constexpr std::int32_t kNanToken = -2;

/// What is wanted of one row of logits.
struct SampleRow {
  SamplingParams params;
  float draw = 0;               ///< uniform_draw(seed, request, position)
  std::int32_t target_id = -1;  ///< >= 0: the log-prob of this token is wanted (scoring)
  std::int32_t num_top = 0;     ///< how many of the most likely tokens are wanted
  bool choose = true;           ///< false: only the target's log-prob
};

struct SampledRow {
  std::int32_t token_id = -1;
  float token_logprob = 0;  ///< of token_id, from the raw logits (before temperature and filters)
  float target_logprob = 0;
};

/// For each row: choose a token, and log-probs of the chosen token, of the target and of the top tokens.
/// Shapes    logits [num_rows, vocab_size], of which the first `valid_vocab` columns are tokens;
///           rows, results [num_rows]; top [num_rows, max_top] (ids and log-probs, falling), max_top may be
///           0; scratch: sample_scratch_bytes(num_rows, vocab_size) bytes.
/// NaN in a row throws Error{kInternal} naming the row, and so does a row of -infinity of which a token is to
/// be chosen. On CUDA, where everything lies in device memory and nothing can be thrown, such a row's
/// token_id is kNanToken and the rest of its result means nothing; a target outside the vocabulary gets
/// log-prob -infinity, and a num_top beyond max_top is cut to it.
struct SampleArgs {
  ConstMatrixView logits = {};
  std::int64_t valid_vocab = 0;
  std::span<const SampleRow> rows = {};
  std::span<SampledRow> results = {};
  Matrix<ScoredToken> top = {};  ///< .logit holds the log-prob
  std::span<std::byte> scratch = {};
};

/// Enough on every device, where it lies at a multiple of 8.
std::int64_t sample_scratch_bytes(std::int64_t num_rows, std::int64_t vocab_size);
std::string why_unsupported(const SampleArgs& args, DeviceKind kind);
void sample(const SampleArgs& args, Stream& stream);

}  // namespace sluice::kernels
