// A struct with a field of every kind that a configuration may have; for tests and the fuzz target.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/config/fields.h"

namespace sluice::testing {

enum class Policy { kLru, kFifo };

constexpr auto enum_names(Policy) {
  return std::to_array<EnumName<Policy>>({{Policy::kLru, "lru"}, {Policy::kFifo, "fifo"}});
}

struct Cache {
  double pinned_gib = 4;
  std::optional<std::int32_t> threads;
  Policy policy = Policy::kLru;

  friend bool operator==(const Cache&, const Cache&) = default;
};

template <class Visitor>
void visit_fields(Visitor& visit, Cache& config) {
  visit("pinned_gib", config.pinned_gib, "pinned memory in GiB",
        Bounds{.min = 0, .max = 512, .above_min = true});
  visit("threads", config.threads, "threads that fill it; null takes all cores", at_least(1));
  visit("policy", config.policy, "what is dropped first");
}

struct Sample {
  std::string name = "none";
  bool verbose = false;
  std::int64_t count = 3;
  std::uint8_t small = 7;
  std::uint64_t seed = 0;
  float scale = 0.1F;
  std::vector<std::int32_t> lengths = {1, 2};
  std::vector<std::string> stops;
  std::vector<Policy> policies;
  std::vector<bool> flags;
  Cache cache;
  std::optional<Cache> second;
  std::vector<Cache> more;

  friend bool operator==(const Sample&, const Sample&) = default;
};

template <class Visitor>
void visit_fields(Visitor& visit, Sample& config) {
  visit("name", config.name, "for people");
  visit("verbose", config.verbose, "say more");
  visit("count", config.count, "how many", between(0, 100));
  visit("small", config.small, "a byte");
  visit("seed", config.seed, "of the generator");
  visit("scale", config.scale, "of everything");
  visit("lengths", config.lengths, "in tokens", at_least(0));
  visit("stops", config.stops, "texts that end it");
  visit("policies", config.policies, "in order");
  visit("flags", config.flags, "a mask");
  visit("cache", config.cache, "the first cache");
  visit("second", config.second, "the second cache, or null");
  visit("more", config.more, "further caches");
}

}  // namespace sluice::testing
