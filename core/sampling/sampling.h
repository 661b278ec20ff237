// Sampling maths shared by every device: parameters, the counter-based generator, and the choice of a
// token from one row of logits. Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sluice {

struct SamplingParams {
  bool do_sample = false;    ///< false is greedy: the lowest id among the largest logits
  float temperature = 1.0F;  ///< below 1e-5 is greedy
  std::int32_t top_k = 0;    ///< keep the k largest; 0 keeps all
  float top_p = 1.0F;        ///< keep the smallest set with at least this mass
  std::uint64_t seed = 0;

  friend bool operator==(const SamplingParams&, const SamplingParams&) = default;
};

/// Throws Error{kInvalidArgument} naming the parameter that is out of range.
void validate(const SamplingParams& params);

/// A uniform draw in [0, 1) with 24 bits, a pure function of its arguments (Philox4x32-10, Salmon et al.
/// 2011): the same on every device, whatever the batch. `request` is the request's own number or hash.
float uniform_draw(std::uint64_t seed, std::uint64_t request, std::uint64_t position);

/// log(sum(exp(logits[i]))) in double, summed in index order. NaN if a logit is NaN, -infinity if all are.
double log_sum_exp(std::span<const float> logits);

struct ScoredToken {
  std::int32_t token_id = 0;
  float logit = 0;
};

/// Chooses a token from logits (the caller has cut rows beyond the tokenizer's vocabulary). Greedy takes the
/// lowest id among the largest logits. Sampling divides by the temperature, keeps the top_k first tokens
/// (falling logit, ties by lower id), then the smallest set of first tokens whose share of what is left
/// is at least top_p, always at least one, and takes the token, by rising id, in whose part of the
/// mass `draw` in [0, 1) falls. Masses are sums of integers (core/sampling/softmax_weight.h), exact in any
/// order, so every device chooses the same token; one less than 2^-45 times as likely as the first is never
/// drawn. A NaN logit is never chosen; several +infinity share the mass. `scratch` needs logits.size()
/// entries, at most kMaxSampledTokens, when sampling and is overwritten. O(logits.size()), no allocation.
/// Throws Error{kInternal} if every logit is NaN or -infinity.
std::int32_t choose_token(std::span<const float> logits, const SamplingParams& params, float draw,
                          std::span<ScoredToken> scratch);

/// The `out.size()` largest logits in falling order, ties by lower id; same scratch. NaN is left out; places
/// that no token fills get id -1 and logit -infinity.
void top_tokens(std::span<const float> logits, std::span<ScoredToken> out, std::span<ScoredToken> scratch);

}  // namespace sluice
