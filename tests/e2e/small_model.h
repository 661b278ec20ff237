// A model of a few kilobytes and a ragged list of requests, on which the end-to-end tests try many
// placements; and what "bit-identical" means.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tests/e2e/e2e.h"

namespace sluice::testing {

/// Three layers, an embedding projection, and dimensions of which none fills a page: weights are padded, and
/// a KV page is shorter than its stride. Ids never end a text: eos_id is outside the vocabulary.
ModelSpec small_spec();

/// The source of an engine for a synthetic model.
offload::ModelSource synthetic(const ModelSpec& spec);

/// small_spec() with an end token that ends several of the ragged requests before their length does.
ModelSpec small_spec_with_eos();

/// Distinct token ids of a prompt, a pure function of its arguments.
std::vector<std::int32_t> prompt_of(std::int64_t length, std::int64_t vocab_size, std::uint32_t seed);

/// Fourteen requests: prompts of 1, page - 1, page, page + 1 and several pages, distinct lengths of output,
/// greedy and sampled, with log-probs and without, one that only scores.
std::vector<offload::Request> ragged_requests(std::int64_t vocab_size);

/// A placement from FlexGen's six numbers.
policy::Placement placed(const std::vector<int>& percents, std::int64_t gpu_batch_size,
                         std::int64_t num_gpu_batches, bool cpu_attention);

/// The first difference between two lists of results, log-probs compared bit for bit; empty if there is none.
std::string first_difference(std::span<const offload::Result> expected,
                             std::span<const offload::Result> found);

}  // namespace sluice::testing
