#include "tests/e2e/small_model.h"

#include <algorithm>
#include <bit>
#include <map>
#include <random>

#include <fmt/format.h>

namespace sluice::testing {

using offload::Request;
using offload::Result;

ModelSpec small_spec() {
  ModelSpec spec;
  spec.name = "small";
  spec.num_layers = 3;
  spec.hidden_dim = 72;
  spec.embed_dim = 40;
  spec.ffn_dim = 200;
  spec.num_heads = spec.num_kv_heads = 3;
  spec.head_dim = 24;
  spec.vocab_size = 96;
  spec.max_positions = 512;
  spec.eos_id = 96;
  return spec;
}

offload::ModelSource synthetic(const ModelSpec& spec) {
  offload::ModelSource source;
  source.random_spec = spec;
  source.random_seed = 20;
  return source;
}

std::vector<std::int32_t> prompt_of(std::int64_t length, std::int64_t vocab_size, std::uint32_t seed) {
  std::mt19937 random(seed);  // its sequence is the same everywhere, a distribution's is not
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < length; ++i)
    ids.push_back(static_cast<std::int32_t>(random() % static_cast<std::uint32_t>(vocab_size)));
  return ids;
}

std::vector<Request> ragged_requests(std::int64_t vocab_size) {
  struct Shape {
    std::int64_t prompt_len, max_new_tokens;
  };
  constexpr Shape kShapes[] = {{1, 9},  {63, 3},  {64, 12},  {65, 1}, {130, 7}, {200, 0}, {333, 5},
                               {2, 20}, {127, 2}, {128, 15}, {5, 4},  {64, 6},  {29, 11}, {100, 10}};
  std::vector<Request> requests;
  for (const Shape& shape : kShapes) {
    const auto number = static_cast<std::uint32_t>(requests.size());
    Request request;
    request.prompt_ids = prompt_of(shape.prompt_len, vocab_size, 1000 + number);
    request.max_new_tokens = shape.max_new_tokens;
    request.want_logprobs = number % 4 != 3;
    request.num_top_logprobs = static_cast<std::int32_t>(number % 3);
    request.want_prompt_logprobs = number % 2 == 1;
    if (number % 3 == 1) {
      request.sampling.do_sample = true;
      request.sampling.temperature = 1.5F;
      request.sampling.top_p = 0.95F;
      request.sampling.seed = number;
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

ModelSpec small_spec_with_eos() {
  static const ModelSpec spec = [] {
    ModelSpec chosen = small_spec();
    const RunOutcome open = run_requests(synthetic(chosen), placed({100, 0, 100, 0, 100, 0}, 4, 1, false),
                                         ragged_requests(chosen.vocab_size));
    // The token that ends the most requests early, the lowest of several.
    std::map<std::int32_t, int> ends;
    for (const Result& result : open.results) {
      std::map<std::int32_t, int> seen;
      for (std::size_t i = 0; i + 1 < result.token_ids.size(); ++i) seen[result.token_ids[i]] = 1;
      for (const auto& [id, count] : seen) ends[id] += count;
    }
    for (const auto& [id, count] : ends) {
      if (chosen.eos_id >= chosen.vocab_size || count > ends[chosen.eos_id]) chosen.eos_id = id;
    }
    return chosen;
  }();
  return spec;
}

policy::Placement placed(const std::vector<int>& percents, std::int64_t gpu_batch_size,
                         std::int64_t num_gpu_batches, bool cpu_attention) {
  policy::Placement placement;
  placement.percents = policy::parse_percents(percents);
  placement.gpu_batch_size = gpu_batch_size;
  placement.num_gpu_batches = num_gpu_batches;
  placement.cpu_attention = cpu_attention;
  return placement;
}

namespace {

bool same_bits(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

std::string difference(const Result& expected, const Result& found) {
  if (expected.token_ids != found.token_ids) return "token ids differ";
  if (expected.finish_reason != found.finish_reason) return "finish reasons differ";
  if (expected.text != found.text) return "texts differ";
  if (expected.prompt_logprobs.size() != found.prompt_logprobs.size()) return "numbers of prompt log-probs";
  for (std::size_t i = 0; i < expected.prompt_logprobs.size(); ++i) {
    if (!same_bits(expected.prompt_logprobs[i], found.prompt_logprobs[i])) {
      return fmt::format("prompt log-prob {}: {} and {}", i, expected.prompt_logprobs[i],
                         found.prompt_logprobs[i]);
    }
  }
  if (expected.logprobs.size() != found.logprobs.size()) return "numbers of log-probs";
  for (std::size_t i = 0; i < expected.logprobs.size(); ++i) {
    const offload::GeneratedLogprob& a = expected.logprobs[i];
    const offload::GeneratedLogprob& b = found.logprobs[i];
    if (a.token_id != b.token_id || !same_bits(a.logprob, b.logprob))
      return fmt::format("log-prob {}: {} and {}", i, a.logprob, b.logprob);
    if (a.top.size() != b.top.size()) return fmt::format("number of most likely tokens {}", i);
    for (std::size_t j = 0; j < a.top.size(); ++j) {
      if (a.top[j].token_id != b.top[j].token_id || !same_bits(a.top[j].logprob, b.top[j].logprob))
        return fmt::format("most likely token {} of {}", j, i);
    }
  }
  return {};
}

}  // namespace

std::string first_difference(std::span<const Result> expected, std::span<const Result> found) {
  if (expected.size() != found.size()) return "numbers of results differ";
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (const std::string what = difference(expected[i], found[i]); !what.empty())
      return fmt::format("request {}: {}", i, what);
  }
  return {};
}

}  // namespace sluice::testing
