#include "kernels/format/prune.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"

namespace sluice::kernels {
namespace {

/// The 15 bits below the sign order finite fp16 and bf16 values by magnitude.
constexpr std::uint16_t magnitude_of(std::uint16_t value) { return value & 0x7FFFU; }

/// The finaliser of SplitMix64.
constexpr std::uint64_t mix(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}
/// 0 <= result < 1, by place alone.
double uniform_at(std::uint64_t key, std::int64_t element) {
  return static_cast<double>(mix(key ^ static_cast<std::uint64_t>(element)) >> 11) * 0x1.0p-53;
}
std::uint64_t key_of(std::string_view name, std::uint64_t seed) {
  std::uint64_t key = mix(seed);
  for (const char c : name) key = mix(key ^ static_cast<unsigned char>(c));
  return key;
}

/// The values of one row or tile, as runs of `run` values that lie `stride` apart.
struct Group {
  std::uint16_t* first;
  std::int64_t run, stride, num_runs;

  template <class Visit>
  void for_each(Visit visit) const {
    for (std::int64_t r = 0; r < num_runs; ++r) {
      for (std::int64_t i = 0; i < run; ++i) visit(first[r * stride + i]);
    }
  }
};

class GroupPruner {
 public:
  explicit GroupPruner(double sparsity) : sparsity_(sparsity) {}

  void prune(const Group& group) {
    magnitudes_.clear();
    group.for_each([&](std::uint16_t value) { magnitudes_.push_back(magnitude_of(value)); });
    const auto count = static_cast<double>(magnitudes_.size());
    const auto drop = static_cast<std::ptrdiff_t>(std::llround(sparsity_ * count));
    if (drop == 0) return;
    const auto last = magnitudes_.begin() + (drop - 1);
    std::nth_element(magnitudes_.begin(), last, magnitudes_.end());
    const std::uint16_t limit = *last;
    // nth_element has put everything below the limit ahead of `last`; the rest of the quota are ties.
    std::ptrdiff_t ties = drop - std::count_if(magnitudes_.begin(), last, [&](auto m) { return m < limit; });
    group.for_each([&](std::uint16_t& value) {
      const std::uint16_t magnitude = magnitude_of(value);
      const bool drops = magnitude < limit || (magnitude == limit && ties-- > 0);
      if (drops) value = 0;
    });
  }

 private:
  double sparsity_;
  std::vector<std::uint16_t> magnitudes_;
};

}  // namespace

void MagnitudeHistogram::add(std::span<const std::uint16_t> values) {
  for (const std::uint16_t value : values) ++counts_[magnitude_of(value)];
}

MagnitudeHistogram::Threshold MagnitudeHistogram::threshold(double sparsity) const {
  std::int64_t total = 0;
  for (const std::int64_t count : counts_) total += count;
  std::int64_t drop = std::llround(sparsity * static_cast<double>(total));
  for (std::size_t magnitude = 0; magnitude < counts_.size(); ++magnitude) {
    if (drop < counts_[magnitude]) {
      return {static_cast<std::uint16_t>(magnitude),
              static_cast<double>(drop) / static_cast<double>(counts_[magnitude])};
    }
    drop -= counts_[magnitude];
  }
  return {static_cast<std::uint16_t>(counts_.size() - 1), 1.0};
}

void prune_rows(const PruneRule& rule, std::string_view tensor_name, std::int64_t first_row,
                std::int64_t cols, const MagnitudeHistogram::Threshold& threshold,
                std::span<std::uint16_t> values) {
  if (rule.sparsity == 0) return;
  const auto count = static_cast<std::int64_t>(values.size());
  const std::int64_t rows = count / cols;
  SLUICE_ASSERT(rows * cols == count);
  if (rule.fake_seed || rule.scope == PruneScope::kMatrix) {
    const std::uint64_t key = key_of(tensor_name, rule.fake_seed.value_or(0));
    const std::uint16_t limit = rule.fake_seed ? 0x7FFFU : threshold.magnitude;
    const double share = rule.fake_seed ? rule.sparsity : threshold.share;
    for (std::int64_t i = 0; i < count; ++i) {
      std::uint16_t& value = values[static_cast<std::size_t>(i)];
      const std::uint16_t magnitude = magnitude_of(value);
      const bool is_drawn = rule.fake_seed || magnitude == limit;
      if (is_drawn ? uniform_at(key, first_row * cols + i) < share : magnitude < limit) value = 0;
    }
    return;
  }
  GroupPruner pruner(rule.sparsity);
  if (rule.scope == PruneScope::kRow) {
    for (std::int64_t r = 0; r < rows; ++r) pruner.prune({values.data() + r * cols, cols, cols, 1});
    return;
  }
  SLUICE_ASSERT(first_row % kCslTileRows == 0);
  for (std::int64_t r = 0; r < rows; r += kCslTileRows) {
    for (std::int64_t c = 0; c < cols; c += kCslTileCols) {
      pruner.prune({values.data() + r * cols + c, std::min(kCslTileCols, cols - c), cols,
                    std::min(kCslTileRows, rows - r)});
    }
  }
}

std::int64_t count_zeros(std::span<const std::uint16_t> values) {
  std::int64_t zeros = 0;
  for (const std::uint16_t value : values) zeros += magnitude_of(value) == 0 ? 1 : 0;
  return zeros;
}

}  // namespace sluice::kernels
