#include "kernels/format/tiled_csl/shared_tile.h"

#include <algorithm>
#include <cstring>

namespace sluice::kernels {
namespace {

constexpr int kChunk = 8;  // elements of 16 bytes

}  // namespace

void load_shared_tile(const std::uint16_t* values, std::int64_t stride, int rows, int cols, int tile_rows,
                      SharedTile& tile) {
  std::uint16_t* to = tile.values.data();
  if (rows < tile_rows || cols < kSharedCols) std::fill_n(to, tile_rows * kSharedCols, std::uint16_t{0});
  for (int r = 0; r < rows; ++r) {
    const std::uint16_t* from = values + r * stride;
    int c = 0;
    for (; c + kChunk <= cols; c += kChunk)
      std::memcpy(to + r * kSharedCols + swizzled_col(r, c), from + c, kChunk * sizeof(*to));
    for (; c < cols; ++c) to[r * kSharedCols + swizzled_col(r, c)] = from[c];
  }
  detail::mark_nonzeros(to, tile_rows, tile.nonzeros.data());
}

void store_shared_tile(const SharedTile& tile, int rows, int cols, std::uint16_t* out, std::int64_t stride) {
  for (int r = 0; r < rows; ++r) {
    const std::uint16_t* from = tile.values.data() + r * kSharedCols;
    std::uint16_t* to = out + r * stride;
    int c = 0;
    for (; c + kChunk <= cols; c += kChunk)
      std::memcpy(to + c, from + swizzled_col(r, c), kChunk * sizeof(*to));
    for (; c < cols; ++c) to[c] = from[swizzled_col(r, c)];
  }
}

}  // namespace sluice::kernels
