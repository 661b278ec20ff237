// Where each tile of a matrix in a format of variable size starts: the table behind its tiles
// (core/format.h). Thread-safe when const.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/format/format.h"

namespace sluice::kernels {

/// What the checks of all formats advise.
inline constexpr const char* kDamagedStore = "the store is damaged: convert the checkpoint again";

/// Offsets and sizes inside a matrix count in this many bytes, which a bulk copy on the GPU needs too.
inline constexpr std::int64_t kTileAlign = 16;

/// The table of tiles with these sizes; empty for none. Throws Error{kUnsupported} naming the tensor if their
/// sum does not fit 32 bits (64 GiB).
std::vector<std::byte> encode_tile_table(const TileSizes& sizes, const std::string& tensor_name);

/// Reads the table of a matrix. Borrows its bytes.
class TileTable {
 public:
  /// The matrix has at least the bytes of its table.
  explicit TileTable(const WeightView& weight);

  std::int64_t num_tiles() const { return num_tiles_; }
  std::span<const std::byte> tile(std::int64_t index) const;
  /// Throws Error{kCorrupt} naming the tensor and the first tile that starts before the one ahead of it, or
  /// ends behind the tiles' bytes, or bytes that no tile covers.
  void check(const std::string& tensor_name) const;

 private:
  std::int64_t start(std::int64_t index) const;  // in bytes

  std::span<const std::byte> tiles_;
  const std::byte* table_ = nullptr;
  std::int64_t num_tiles_ = 0;
};

/// The tiles of a matrix whose bytes are as many as its format allows, and all belong to a tile. Throws
/// Error{kCorrupt} for another.
TileTable checked_tiles(const WeightView& weight, const std::string& tensor_name);

}  // namespace sluice::kernels
