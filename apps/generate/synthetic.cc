#include "apps/generate/synthetic.h"

#include <random>
#include <set>

namespace sluice::apps {
namespace {

std::vector<std::int32_t> ordinary_ids(const ModelSpec& spec) {
  std::vector<std::int32_t> ids;
  for (std::int32_t id = 0; id < spec.vocab_size; ++id) {
    if (id != spec.bos_id && id != spec.eos_id && id != spec.pad_id) ids.push_back(id);
  }
  return ids;
}

/// True if `count` different prompts of `length` tokens exist.
bool enough_prompts(std::int64_t count, std::int64_t length, std::int64_t num_ids) {
  std::int64_t prompts = 1;
  for (std::int64_t i = 0; i < length && prompts < count; ++i) {
    if (num_ids > 1 && prompts > count / num_ids) return true;
    prompts *= num_ids;
  }
  return prompts >= count;
}

}  // namespace

std::vector<PendingRequest> synthetic_requests(const SyntheticWork& work, const ModelSpec& spec,
                                               const offload::Request& defaults) {
  SLUICE_CHECK(work.prompt_len >= 1 && work.gen_len >= 0 && work.num_prompts >= 1, Code::kInvalidArgument,
               fmt::format("synthetic benchmark: {} prompts of {} tokens, {} generated", work.num_prompts,
                           work.prompt_len, work.gen_len),
               "give --num-prompts and --prompt-len of at least 1, --gen-len of at least 0");
  SLUICE_CHECK(work.prompt_len + work.gen_len <= spec.max_positions, Code::kInvalidArgument,
               fmt::format("--prompt-len {} and --gen-len {} are more than the context of {}",
                           work.prompt_len, work.gen_len, spec.max_positions),
               "lower one of them");
  const std::vector<std::int32_t> ids = ordinary_ids(spec);
  SLUICE_CHECK(
      enough_prompts(work.num_prompts, work.prompt_len, static_cast<std::int64_t>(ids.size())),
      Code::kInvalidArgument,
      fmt::format("there are no {} different prompts of {} tokens", work.num_prompts, work.prompt_len),
      "raise --prompt-len or lower --num-prompts");

  std::mt19937_64 random(work.seed);
  std::set<std::vector<std::int32_t>> seen;
  std::vector<PendingRequest> requests;
  while (static_cast<std::int64_t>(requests.size()) < work.num_prompts) {
    std::vector<std::int32_t> prompt(static_cast<std::size_t>(work.prompt_len));
    for (std::int32_t& id : prompt) id = ids[random() % ids.size()];
    if (!seen.insert(prompt).second) continue;
    PendingRequest pending;
    pending.id = std::to_string(requests.size());
    pending.place = "prompt " + pending.id;
    pending.request = defaults;
    pending.request.prompt_ids = std::move(prompt);
    pending.request.max_new_tokens = work.gen_len;
    pending.request.ignore_eos = true;
    pending.request.stop.clear();
    pending.request.stop_ids.clear();
    requests.push_back(std::move(pending));
  }
  return requests;
}

}  // namespace sluice::apps
