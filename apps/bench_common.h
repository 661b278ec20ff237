// What the CPU parts of `sluice bench` share: working memory, alternating measurements, the machine in words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "offload/memory/arena.h"

namespace sluice::apps {

/// Throws Error{kUnsupported} in debug and sanitizer builds, whose figures mean nothing.
void require_measuring_build();

/// "Intel(R) Xeon(R), 16 threads, AVX3, last-level cache 480.00 MiB"
std::string machine_text(int num_threads);

/// CPUs that this process may use.
int usable_cpus();

/// Bytes of the last-level cache; 0 if the system does not say.
std::int64_t last_level_cache_bytes();

/// The value of --working-set: what the user gave, or 1 GiB and at least 8 times the last-level cache, so
/// that less than an eighth of a sweep can come from the cache.
std::int64_t working_set_bytes(const std::string& option);

/// Memory in huge pages, touched by `num_threads`. Throws Error{kOutOfMemory} with the numbers if the machine
/// has less to give.
class WorkingMemory {
 public:
  WorkingMemory(std::int64_t bytes, int num_threads);
  std::span<std::byte> bytes() const { return arena_.memory(); }
  /// Fills it with random fp16 numbers in (-1, 1), the same every time.
  void fill_half() const;

 private:
  offload::MemoryBudget budget_;
  offload::Arena arena_;
};

/// Rates of one contender over the rounds, sorted.
struct Rates {
  std::vector<double> values;
  double median() const { return values[values.size() / 2]; }
  double low() const { return values.front(); }
  double high() const { return values.back(); }
};

/// Runs the contenders in turn, one warm-up round and then `rounds` (odd) measured ones, so that a change of
/// the machine's mood hits all alike. Each returns the work it did; the result holds work per second.
std::vector<Rates> alternate(int rounds, const std::vector<std::function<double()>>& contenders);

/// "21.73 (21.50 to 21.80)" in units of `unit`.
std::string rates_text(const Rates& rates, double unit);

}  // namespace sluice::apps
