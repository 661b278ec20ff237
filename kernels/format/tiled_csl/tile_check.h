// Checks what a stored tile writes into shared memory, place by place. Not thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/dtype.h"
#include "kernels/format/tile_table.h"
#include "kernels/format/tiled_csl/shared_tile.h"

namespace sluice::kernels {

class TileCheck {
 public:
  /// For the tiles of a [rows, cols] matrix, in row-major order, of `tile_rows` x 64 elements of `dtype`.
  /// `tensor_name` and `fix`, the remedy of every Error, outlive the check.
  TileCheck(std::int64_t rows, std::int64_t cols, int tile_rows, DType dtype, const std::string& tensor_name,
            const char* fix);

  std::int64_t num_tiles() const { return blocks_ * tiles_per_block_; }
  void start(std::int64_t tile);
  /// Throws Error{kCorrupt} unless the byte offset is that of an element, the value finite and no negative
  /// zero, and a nonzero lies inside the matrix, where no other one does.
  void write(std::uint32_t offset, std::uint16_t value);
  /// The words of a list, of which at most three may be zeros.
  void write_words(std::span<const std::byte> words);
  /// Throws Error{kCorrupt} if a zero was written where a nonzero was: the last one would win.
  void finish() const;

  /// Throws Error{kCorrupt} naming the tensor and the tile.
  [[noreturn]] void refuse(const std::string& problem) const;

 private:
  // fixed after construction
  std::int64_t rows_, cols_, blocks_, tiles_per_block_;
  int tile_rows_;
  std::uint32_t exponent_;
  const std::string& tensor_name_;
  const char* fix_;

  // of the tile
  std::int64_t tile_ = 0;
  std::array<std::uint64_t, SharedTile::kMaxRows> inside_{}, nonzeros_{}, zeros_{};
};

}  // namespace sluice::kernels
