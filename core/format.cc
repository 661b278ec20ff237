#include "core/format.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/error.h"
#include "core/units.h"

namespace sluice {
namespace {

constexpr std::array kEncodings = {
    Encoding::kDense,      Encoding::kTiledCsl,   Encoding::kBankCsl,     Encoding::kPairs24,
    Encoding::kBitmap,     Encoding::kInt8,       Encoding::kInt8G128,    Encoding::kInt4G64,
    Encoding::kInt4G128,   Encoding::kInt4SymG64, Encoding::kInt4SymG128, Encoding::kBitmapInt8,
    Encoding::kBitmapInt4,
};
constexpr std::array<std::string_view, kEncodings.size()> kEncodingNames = {
    "dense",    "tiled_csl", "bank_csl",     "pairs24",       "bitmap",      "int8",        "int8_g128",
    "int4_g64", "int4_g128", "int4_sym_g64", "int4_sym_g128", "bitmap_int8", "bitmap_int4",
};

constexpr std::int64_t kTileAlign = 16;
constexpr std::int64_t kBankHeaderBytes = 16;

std::int64_t quant_bytes(Encoding encoding, std::int64_t rows, std::int64_t cols) {
  const std::int64_t row_bytes = align_up(div_up(cols * element_bits(encoding), 8), kTileAlign);
  const bool has_minimum = encoding == Encoding::kInt4G64 || encoding == Encoding::kInt4G128;
  const std::int64_t groups = div_up(cols, quant_group_cols(encoding, cols));
  const std::int64_t last = rows % kQuantBlockRows;
  const auto block_bytes = [&](std::int64_t n) {
    return n * row_bytes + groups * align_up(n * (has_minimum ? 4 : 2), kTileAlign);
  };
  return rows / kQuantBlockRows * block_bytes(kQuantBlockRows) + (last > 0 ? block_bytes(last) : 0);
}

/// Most bytes of a tile with rows x cols elements inside the matrix.
std::int64_t max_csl_tile_bytes(std::int64_t rows, std::int64_t cols) {
  return align_up(4 * rows * cols, kTileAlign);
}
/// Words alone, or a slot for every row of each of the 64 lists: 16 bits of value and 4 of index.
std::int64_t max_bank_tile_bytes(std::int64_t rows, std::int64_t cols) {
  const std::int64_t slots = align_up(rows, 8);
  return kBankHeaderBytes + std::min(max_csl_tile_bytes(rows, cols), slots * kBankTileCols * 5 / 2);
}

/// The fixed parts and masks, and for each strip of 16 rows and step of 32 columns a slot for every word of a
/// lane: two of each of its four quads. Entries take at most what masks take, and half of the slots.
constexpr std::int64_t max_pairs_tile_bytes(std::int64_t rows, std::int64_t cols) {
  return kPairsFixedBytes + kPairsMaskBytes + div_up(rows, 16) * div_up(cols, 32) * (8 * 32 * 4);
}
static_assert(max_pairs_tile_bytes(kPairsTileRows, kPairsTileCols) == kPairsMostBytes);

/// Sum of `tile_bytes` over the tiles, of which those at the last rows and columns may be smaller.
std::int64_t sum_over_tiles(std::int64_t rows, std::int64_t cols, std::int64_t tile_rows,
                            std::int64_t tile_cols,
                            std::int64_t (*tile_bytes)(std::int64_t rows, std::int64_t cols)) {
  const auto row_of_tiles = [&](std::int64_t n) {
    const std::int64_t last = cols % tile_cols;
    return cols / tile_cols * tile_bytes(n, tile_cols) + (last > 0 ? tile_bytes(n, last) : 0);
  };
  const std::int64_t last = rows % tile_rows;
  return rows / tile_rows * row_of_tiles(tile_rows) + (last > 0 ? row_of_tiles(last) : 0);
}

std::int64_t chunk_fixed_bytes(Encoding encoding) {
  const std::int64_t mask = kBitmapChunkSegments * kBitmapSegmentCols / 8;
  return encoding == Encoding::kBitmap ? mask : mask + 2 * kBitmapChunkSegments;
}

/// Bytes of the nonzeros, each chunk's padded, if no element is zero.
std::int64_t full_chunks_bytes(Encoding encoding, std::int64_t rows, std::int64_t cols) {
  const std::int64_t row_segments = div_up(cols, kBitmapSegmentCols);
  const std::int64_t missing = row_segments * kBitmapSegmentCols - cols;
  const auto chunk_bytes = [&](std::int64_t segments, std::int64_t row_ends) {
    const std::int64_t cells = segments * kBitmapSegmentCols - row_ends * missing;
    return align_up(div_up(cells * element_bits(encoding), 8), kTileAlign);
  };
  // A whole chunk has the short segments of `fewest` row ends or of one more.
  const std::int64_t segments = rows * row_segments;
  const std::int64_t whole = segments / kBitmapChunkSegments;
  const std::int64_t row_ends = whole * kBitmapChunkSegments / row_segments;
  const std::int64_t fewest = kBitmapChunkSegments / row_segments;
  const std::int64_t with_more = row_ends - whole * fewest;
  return with_more * chunk_bytes(kBitmapChunkSegments, fewest + 1) +
         (whole - with_more) * chunk_bytes(kBitmapChunkSegments, fewest) +
         chunk_bytes(segments % kBitmapChunkSegments, rows - row_ends);
}

}  // namespace

std::string_view encoding_name(Encoding encoding) {
  return kEncodingNames.at(static_cast<std::size_t>(encoding));
}

std::optional<Encoding> parse_encoding(std::string_view name) {
  for (const Encoding encoding : kEncodings) {
    if (encoding_name(encoding) == name) return encoding;
  }
  return std::nullopt;
}

std::span<const Encoding> all_encodings() { return kEncodings; }

bool is_lossless(Encoding encoding) { return element_bits(encoding) == 16; }

bool has_fixed_size(Encoding encoding) {
  switch (encoding) {
    case Encoding::kTiledCsl:
    case Encoding::kBankCsl:
    case Encoding::kPairs24:
    case Encoding::kBitmap:
    case Encoding::kBitmapInt8:
    case Encoding::kBitmapInt4:
      return false;
    default:
      return true;
  }
}

std::string weight_format_name(WeightFormat format) {
  return fmt::format("{}_{}", encoding_name(format.encoding), dtype_name(format.dtype));
}

std::optional<WeightFormat> parse_weight_format(std::string_view name) {
  for (const Encoding encoding : kEncodings) {
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      if (weight_format_name({encoding, dtype}) == name) return WeightFormat{encoding, dtype};
    }
  }
  return std::nullopt;
}

std::int64_t weight_bytes(WeightFormat format, std::int64_t rows, std::int64_t cols) {
  SLUICE_ASSERT(has_fixed_size(format.encoding));
  return weight_byte_range(format, rows, cols).min;
}

ByteRange weight_byte_range(WeightFormat format, std::int64_t rows, std::int64_t cols) {
  const std::int64_t cells = rows * cols;
  const std::int64_t tiles = num_tiles(format.encoding, rows, cols);
  const std::int64_t table = tile_table_bytes(tiles);
  switch (format.encoding) {
    case Encoding::kDense:
      return {2 * cells, 2 * cells};
    case Encoding::kTiledCsl:
      return {table, table + sum_over_tiles(rows, cols, kCslTileRows, kCslTileCols, max_csl_tile_bytes)};
    case Encoding::kBankCsl:
      return {table + tiles * kBankHeaderBytes,
              table + sum_over_tiles(rows, cols, kBankTileRows, kBankTileCols, max_bank_tile_bytes)};
    case Encoding::kPairs24:
      return {table + tiles * kPairsFixedBytes,
              table + sum_over_tiles(rows, cols, kPairsTileRows, kPairsTileCols, max_pairs_tile_bytes)};
    case Encoding::kBitmap:
    case Encoding::kBitmapInt8:
    case Encoding::kBitmapInt4: {
      const std::int64_t fixed = table + tiles * chunk_fixed_bytes(format.encoding);
      return {fixed, fixed + full_chunks_bytes(format.encoding, rows, cols)};
    }
    default: {
      const std::int64_t bytes = quant_bytes(format.encoding, rows, cols);
      return {bytes, bytes};
    }
  }
}

std::int64_t num_tiles(Encoding encoding, std::int64_t rows, std::int64_t cols) {
  switch (encoding) {
    case Encoding::kTiledCsl:
      return div_up(rows, kCslTileRows) * div_up(cols, kCslTileCols);
    case Encoding::kBankCsl:
      return div_up(rows, kBankTileRows) * div_up(cols, kBankTileCols);
    case Encoding::kPairs24:
      return div_up(rows, kPairsTileRows) * div_up(cols, kPairsTileCols);
    case Encoding::kBitmap:
    case Encoding::kBitmapInt8:
    case Encoding::kBitmapInt4:
      return div_up(rows * div_up(cols, kBitmapSegmentCols), kBitmapChunkSegments);
    default:
      return 0;
  }
}

std::int64_t tile_table_bytes(std::int64_t num_tiles) {
  return num_tiles == 0 ? 0 : align_up((num_tiles + 1) * 4, kTileAlign);
}

std::int64_t quant_group_cols(Encoding encoding, std::int64_t cols) {
  switch (encoding) {
    case Encoding::kInt4G64:
    case Encoding::kInt4SymG64:
      return 64;
    case Encoding::kInt8G128:
    case Encoding::kInt4G128:
    case Encoding::kInt4SymG128:
    case Encoding::kBitmapInt8:
    case Encoding::kBitmapInt4:
      return 128;
    default:
      return cols;
  }
}

int element_bits(Encoding encoding) {
  switch (encoding) {
    case Encoding::kInt8:
    case Encoding::kInt8G128:
    case Encoding::kBitmapInt8:
      return 8;
    case Encoding::kInt4G64:
    case Encoding::kInt4G128:
    case Encoding::kInt4SymG64:
    case Encoding::kInt4SymG128:
    case Encoding::kBitmapInt4:
      return 4;
    default:
      return 16;
  }
}

}  // namespace sluice
