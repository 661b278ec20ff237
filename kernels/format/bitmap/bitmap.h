// Bitmap formats: one bit an element, then the nonzeros, of 16 bits or quantised to 8 or 4. The functions
// behind their rows in the table of formats (kernels/format/format.h); the layout is in FORMAT.md. Pure
// functions, thread-safe.
#pragma once

#include "kernels/format/format.h"

namespace sluice::kernels {

/// The fewest rows that fill whole chunks.
std::int64_t bitmap_row_granule(std::int64_t cols);
std::int64_t bitmap_max_run_bytes(Encoding encoding, std::int64_t num_rows, std::int64_t cols);
std::int64_t encode_bitmap(Encoding encoding, const RowRun& run, std::span<std::byte> out, TileSizes& sizes);
void check_bitmap(const WeightView& weight, const std::string& tensor_name);
void expand_bitmap(const WeightView& weight, std::int64_t first_row, std::int64_t num_rows,
                   std::span<std::uint16_t> out);

namespace detail {

/// Where a chunk's parts stand, from its start.
inline constexpr std::int64_t kSegmentMaskBytes = kBitmapSegmentCols / 8;
inline constexpr std::int64_t kChunkMaskBytes = kBitmapChunkSegments * kSegmentMaskBytes;
inline constexpr std::int64_t kChunkCells = kBitmapChunkSegments * kBitmapSegmentCols;
/// Of the nonzeros, `bits` each.
constexpr std::int64_t chunk_values_offset(int bits) {
  return kChunkMaskBytes + (bits == 16 ? 0 : 2 * kBitmapChunkSegments);
}

/// Segments [first, first + count) of a matrix, row by row, that one chunk holds.
struct ChunkSegments {
  DType dtype = DType::kF16;
  int bits = 16;  ///< of a stored nonzero
  std::int64_t cols = 0;
  std::int64_t first = 0, count = 0;
};

/// `values` are those of the matrix from its first row on. Returns the chunk's bytes, a multiple of 16. `out`
/// has room for a full chunk, padding included.
std::int64_t encode_bitmap_chunk(const ChunkSegments& segments, const std::uint16_t* values, std::byte* out);
/// `values` is where the matrix's first row would stand. Reads up to 16 bytes behind the chunk.
void expand_bitmap_chunk(const ChunkSegments& segments, const std::byte* chunk, std::uint16_t* values);

}  // namespace detail
}  // namespace sluice::kernels
