#include "core/sampling/sampling.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/sampling/philox.h"
#include "core/sampling/softmax_weight.h"

namespace sluice {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr float kGreedyTemperature = 1e-5F;

/// Falling logit, ties by lower id. A strict weak order as long as no logit is NaN.
bool ranks_before(const ScoredToken& a, const ScoredToken& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token_id < b.token_id);
}

ScoredToken scored(std::span<const float> logits, std::size_t i) {
  return {static_cast<std::int32_t>(i), logits[i]};
}

/// The largest logit; NaN loses every comparison, so it never is the answer. -infinity if there is none.
float largest_logit(std::span<const float> logits) {
  // Independent lanes, so that the compiler may use vector maxima without reordering anything.
  constexpr std::size_t kLanes = 16;
  std::array<float, kLanes> lanes;
  lanes.fill(kLowest);
  std::size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (std::size_t j = 0; j < kLanes; ++j) lanes[j] = logits[i + j] > lanes[j] ? logits[i + j] : lanes[j];
  }
  for (; i < logits.size(); ++i) lanes[0] = logits[i] > lanes[0] ? logits[i] : lanes[0];
  return *std::max_element(lanes.begin(), lanes.end());
}

float require_largest(std::span<const float> logits) {
  const float largest = largest_logit(logits);
  SLUICE_CHECK(largest > kLowest, Code::kInternal,
               fmt::format("no token can be chosen: all {} logits are NaN or -infinity", logits.size()),
               "check the weights of the model for NaN and overflow");
  return largest;
}

/// The tokens a filter keeps: those that rank no later than `last`.
struct Kept {
  ScoredToken last{std::numeric_limits<std::int32_t>::max(), kLowest};
  bool operator()(float logit, std::size_t id) const {
    return logit > last.logit || (logit == last.logit && static_cast<std::int32_t>(id) <= last.token_id);
  }
};

/// Moves the `count` tokens that rank first to the front of `scratch`, in no order, and returns them; fewer
/// if there are fewer that are not NaN. O(logits.size()): candidates are collected above a rising threshold
/// in a buffer of twice the count, which is cut back to the best `count` each time it is full.
std::span<ScoredToken> select_first(std::span<const float> logits, std::size_t count,
                                    std::span<ScoredToken> scratch) {
  constexpr std::size_t kSmallestBuffer = 512;
  const std::size_t capacity = std::min(logits.size(), std::max(2 * count, kSmallestBuffer));
  const auto begin = scratch.begin();
  std::size_t size = 0;
  const auto cut = [&] {
    if (size <= count) return;
    std::nth_element(begin, begin + static_cast<std::ptrdiff_t>(count) - 1,
                     begin + static_cast<std::ptrdiff_t>(size), ranks_before);
    size = count;
  };
  if (count == 0) return {};
  float threshold = kLowest;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] >= threshold)) continue;
    if (size == capacity) {
      cut();
      threshold = scratch[count - 1].logit;  // nth_element left the last one to keep there
    }
    scratch[size++] = scored(logits, i);
  }
  cut();
  return scratch.first(size);
}

Kept keep_top_k(std::span<const float> logits, std::int32_t top_k, std::span<ScoredToken> scratch) {
  const auto count = static_cast<std::size_t>(top_k);
  if (top_k == 0 || count >= logits.size()) return {};
  const std::span<ScoredToken> first = select_first(logits, count, scratch);
  if (first.size() < count) return {};
  return {*std::max_element(first.begin(), first.end(), ranks_before)};
}

/// The token at which the mass of `tokens`, taken in rank order, reaches `target`; empty mass before them.
/// False if it does not; `mass` is then what they hold. Sorts `tokens`.
bool reaches(std::span<ScoredToken> tokens, const SoftmaxWeight& weight, std::uint64_t target,
             std::uint64_t& mass, Kept& kept) {
  std::sort(tokens.begin(), tokens.end(), ranks_before);
  for (const ScoredToken& token : tokens) {
    mass += weight(token.logit);
    kept.last = token;
    if (mass >= target) return true;
  }
  return false;
}

/// Cuts `before` down to the smallest set of first-ranking tokens whose share of the mass is at least top_p.
Kept keep_top_p(std::span<const float> logits, float top_p, const Kept& before, const SoftmaxWeight& weight,
                std::span<ScoredToken> scratch) {
  if (top_p >= 1.0F) return before;
  std::uint64_t total = 0;
  std::size_t num_kept = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (!before(logits[i], i)) continue;
    total += weight(logits[i]);
    ++num_kept;
  }
  const std::uint64_t target = top_p_target(total, top_p);

  // Trained models put nearly all mass on few tokens: try those alone.
  constexpr std::size_t kHead = 512;
  Kept kept;
  std::uint64_t mass = 0;
  std::span<ScoredToken> head = select_first(logits, std::min(kHead, num_kept), scratch);
  if (reaches(head, weight, target, mass, kept) || num_kept <= kHead) return kept;

  // A flat distribution: halve the range in which the mass is reached, in linear time altogether.
  std::span<ScoredToken> range = select_first(logits, num_kept, scratch);
  mass = 0;
  while (range.size() > kHead) {
    const std::size_t half = range.size() / 2;
    std::nth_element(range.begin(), range.begin() + static_cast<std::ptrdiff_t>(half), range.end(),
                     ranks_before);
    std::uint64_t upper = 0;
    for (const ScoredToken& token : range.first(half)) upper += weight(token.logit);
    if (mass + upper >= target) {
      range = range.first(half);
    } else {
      mass += upper;
      range = range.subspan(half);
    }
  }
  reaches(range, weight, target, mass, kept);
  return kept;
}

/// The token whose part of the kept mass, laid out by rising id, contains the share `draw` of it.
std::int32_t pick(std::span<const float> logits, const Kept& kept, const SoftmaxWeight& weight, float draw) {
  // Sums per block let the second walk skip whole blocks, so exp is taken about once per token.
  constexpr std::size_t kBlocks = 64;
  const std::size_t block_size = (logits.size() + kBlocks - 1) / kBlocks;
  std::array<std::uint64_t, kBlocks> block_mass{};
  std::uint64_t total = 0;
  for (std::size_t b = 0; b < kBlocks; ++b) {
    const std::size_t end = std::min(logits.size(), (b + 1) * block_size);
    for (std::size_t i = b * block_size; i < end; ++i) {
      if (kept(logits[i], i)) block_mass[b] += weight(logits[i]);
    }
    total += block_mass[b];
  }
  const std::uint64_t target = draw_target(total, draw);
  std::uint64_t mass = 0;
  for (std::size_t b = 0; b < kBlocks; ++b) {
    if (mass + block_mass[b] <= target) {
      mass += block_mass[b];
      continue;
    }
    const std::size_t end = std::min(logits.size(), (b + 1) * block_size);
    for (std::size_t i = b * block_size; i < end; ++i) {
      if (!kept(logits[i], i)) continue;
      mass += weight(logits[i]);
      if (mass > target) return static_cast<std::int32_t>(i);
    }
  }
  throw Error(Code::kInternal, fmt::format("no token at draw {} of mass {}", draw, total));
}

}  // namespace

void validate(const SamplingParams& params) {
  SLUICE_CHECK(params.temperature >= 0.0F && std::isfinite(params.temperature), Code::kInvalidArgument,
               fmt::format("temperature is {}", params.temperature), "give a number >= 0; 0 is greedy");
  SLUICE_CHECK(params.top_k >= 0, Code::kInvalidArgument, fmt::format("top_k is {}", params.top_k),
               "give the number of tokens to keep, or 0 to keep all");
  SLUICE_CHECK(params.top_p > 0.0F && params.top_p <= 1.0F, Code::kInvalidArgument,
               fmt::format("top_p is {}", params.top_p), "give a share above 0 and at most 1; 1 keeps all");
}

float uniform_draw(std::uint64_t seed, std::uint64_t request, std::uint64_t position) {
  const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x & 0xFFFFFFFFU); };
  const auto high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
  const PhiloxCounter bits =
      philox4x32_10({low(position), high(position), low(request), high(request)}, {low(seed), high(seed)});
  return static_cast<float>(bits[0] >> 8) * 0x1p-24F;
}

double log_sum_exp(std::span<const float> logits) {
  const double largest = largest_logit(logits);
  double sum = 0;
  for (const float logit : logits) {
    const double x = logit;
    sum += x == largest ? 1.0 : std::exp(x - largest);
  }
  return sum > 0 || std::isnan(sum) ? largest + std::log(sum) : largest;
}

std::int32_t choose_token(std::span<const float> logits, const SamplingParams& params, float draw,
                          std::span<ScoredToken> scratch) {
  const float largest = require_largest(logits);
  if (!params.do_sample || params.temperature < kGreedyTemperature) {
    return static_cast<std::int32_t>(std::find(logits.begin(), logits.end(), largest) - logits.begin());
  }
  SLUICE_ASSERT(scratch.size() >= logits.size());
  SLUICE_ASSERT(static_cast<std::int64_t>(logits.size()) <= kMaxSampledTokens);
  SLUICE_ASSERT(draw >= 0.0F && draw < 1.0F);
  const SoftmaxWeight weight{largest, 1.0 / params.temperature};
  const Kept top_k = keep_top_k(logits, params.top_k, scratch);
  const Kept kept = keep_top_p(logits, params.top_p, top_k, weight, scratch);
  return pick(logits, kept, weight, draw);
}

void top_tokens(std::span<const float> logits, std::span<ScoredToken> out, std::span<ScoredToken> scratch) {
  SLUICE_ASSERT(scratch.size() >= logits.size());
  const std::span<ScoredToken> first = select_first(logits, std::min(out.size(), logits.size()), scratch);
  std::sort(first.begin(), first.end(), ranks_before);
  std::copy(first.begin(), first.end(), out.begin());
  std::fill(out.begin() + static_cast<std::ptrdiff_t>(first.size()), out.end(), ScoredToken{-1, kLowest});
}

}  // namespace sluice
