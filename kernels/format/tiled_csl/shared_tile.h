// A tile of 64 columns of 16-bit elements as it lies in shared memory: the sparse formats store places in it,
// so that unpacking needs no arithmetic. Pure functions, thread-safe.
//
// A row is 128 bytes, all 32 banks. The eight 16-byte chunks of row r change places by XOR with r mod 8, as
// ldmatrix without conflicts and the 128-byte swizzle of wgmma descriptors both want it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/format.h"

namespace sluice::kernels {

inline constexpr int kSharedCols = 64, kSharedBanks = 32;
static_assert(kSharedCols == kCslTileCols && kSharedCols == kBankTileCols);

/// Where logical column `col` of row `row` lies in its row; its own inverse.
constexpr int swizzled_col(int row, int col) { return col ^ ((row & 7) << 3); }

/// Rows (columns) of a tile that starts at `first` of `total`.
constexpr int tile_part(std::int64_t total, std::int64_t first, int tile) {
  return static_cast<int>(std::min<std::int64_t>(tile, total - first));
}

/// Up to 256 rows. A place is row * 64 + swizzled column.
struct SharedTile {
  static constexpr int kMaxRows = kBankTileRows;

  alignas(64) std::array<std::uint16_t, kMaxRows * kSharedCols> values;
  std::array<std::uint64_t, kMaxRows> nonzeros;  ///< bit p of entry r: swizzled column p of row r
};

/// Copies the elements [0, rows) x [0, cols) at `values` into `tile`, whose first `tile_rows` rows get zeros
/// in all other places. Negative zeros become zeros.
void load_shared_tile(const std::uint16_t* values, std::int64_t stride, int rows, int cols, int tile_rows,
                      SharedTile& tile);
/// The values of the tile back to `out`; does not look at `tile.nonzeros`.
void store_shared_tile(const SharedTile& tile, int rows, int cols, std::uint16_t* out, std::int64_t stride);

namespace detail {

/// Turns negative zeros of a row of 64 values into zeros and returns the bits of its nonzeros, for each of
/// `num_rows` rows. SIMD.
void mark_nonzeros(std::uint16_t* values, std::int64_t num_rows, std::uint64_t* nonzeros);

}  // namespace detail
}  // namespace sluice::kernels
