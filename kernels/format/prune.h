// Magnitude pruning of 16-bit weights on their way into a store. Zeros stay zeros and count as pruned first.
// Pure functions, thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "core/config/fields.h"
#include "core/format.h"

namespace sluice::kernels {

/// Among which weights the smallest are looked for.
enum class PruneScope : std::uint8_t {
  kRow,     ///< each row has the same number of zeros
  kTile,    ///< each 128 x 64 tile has the same share, which balances Tiled-CSL's tiles
  kMatrix,  ///< one threshold for the whole matrix
};
constexpr auto enum_names(PruneScope) {
  return std::to_array<EnumName<PruneScope>>(
      {{PruneScope::kRow, "row"}, {PruneScope::kTile, "tile"}, {PruneScope::kMatrix, "matrix"}});
}

constexpr std::string_view prune_scope_name(PruneScope scope) {
  for (const auto& [value, name] : enum_names(scope)) {
    if (value == scope) return name;
  }
  return "?";
}

struct PruneRule {
  double sparsity = 0;  ///< share of zeros afterwards, 0..1; 0: nothing is done
  PruneScope scope = PruneScope::kRow;
  /// A random mask of this seed instead of the magnitudes, for benchmarks; `scope` does not matter then.
  std::optional<std::uint64_t> fake_seed;

  friend bool operator==(const PruneRule&, const PruneRule&) = default;
};

/// How often each magnitude occurs in a matrix. 256 KiB; belongs to one thread.
class MagnitudeHistogram {
 public:
  void clear() { counts_ = {}; }
  void add(std::span<const std::uint16_t> values);
  /// What to drop so that `sparsity` of all values added are zero: everything below `magnitude`, and of the
  /// values that have it this share, told by a hash of their place.
  struct Threshold {
    std::uint16_t magnitude = 0;
    double share = 0;
  };
  Threshold threshold(double sparsity) const;

 private:
  std::array<std::int64_t, 1U << 15> counts_{};
};

/// Prunes rows [first_row, first_row + values.size() / cols) of the tensor in place. `threshold` is that of
/// the whole matrix, used with kMatrix alone; with kTile first_row is a multiple of 128 and all rows of a
/// tile are there. In a row or tile, of equal magnitudes those that come first are dropped.
void prune_rows(const PruneRule& rule, std::string_view tensor_name, std::int64_t first_row,
                std::int64_t cols, const MagnitudeHistogram::Threshold& threshold,
                std::span<std::uint16_t> values);

std::int64_t count_zeros(std::span<const std::uint16_t> values);

}  // namespace sluice::kernels
