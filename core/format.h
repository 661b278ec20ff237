// Stored formats of weight matrices: ids and sizes. `policy` plans with these sizes and `kernels/format`
// holds the codecs; each format's layout is a page in its folder there. Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/dtype.h"

namespace sluice {

/// How the elements of a matrix are packed.
enum class Encoding : std::uint8_t {
  kDense,        ///< every element
  kTiledCsl,     ///< nonzeros of 128 x 64 tiles with their places in shared memory (Flash-LLM's Tiled-CSL)
  kBankCsl,      ///< nonzeros of 256 x 64 tiles, one list per shared-memory bank, places as deltas
  kPairs24,      ///< 64 x 256 tiles: two nonzeros of four columns for sparse tensor cores, the others apart
  kBitmap,       ///< one bit an element, then the nonzeros
  kInt8,         ///< 8 bits, one scale a row
  kInt8G128,     ///< 8 bits, one scale for 128 columns of a row
  kInt4G64,      ///< 4 bits, scale and minimum for 64 columns of a row
  kInt4G128,     ///< the same for 128 columns
  kInt4SymG64,   ///< 4 bits around zero, one scale for 64 columns; zero stays zero
  kInt4SymG128,  ///< the same for 128 columns
  kBitmapInt8,   ///< bitmap with nonzeros of 8 bits, one scale for 128 columns
  kBitmapInt4,   ///< bitmap with nonzeros of 4 bits, one scale for 128 columns
};
/// "dense", "tiled_csl", ...: what `--format` takes.
std::string_view encoding_name(Encoding encoding);
std::optional<Encoding> parse_encoding(std::string_view name);
/// All of them, in the order above.
std::span<const Encoding> all_encodings();
/// True if every 16-bit value comes back as it was (a negative zero as zero).
bool is_lossless(Encoding encoding);
/// True if the stored bytes depend on the shape alone; else they depend on the number of zeros and their
/// places.
bool has_fixed_size(Encoding encoding);

/// An encoding of values of one 16-bit type, which is also the type that it decodes to.
struct WeightFormat {
  Encoding encoding = Encoding::kDense;
  DType dtype = DType::kF16;  ///< f16 or bf16

  static const WeightFormat kDenseF16, kDenseBF16;

  friend bool operator==(const WeightFormat&, const WeightFormat&) = default;
};
inline constexpr WeightFormat WeightFormat::kDenseF16{Encoding::kDense, DType::kF16};
inline constexpr WeightFormat WeightFormat::kDenseBF16{Encoding::kDense, DType::kBF16};

/// "dense_f16", "tiled_csl_bf16", ...: encoding and type, as manifests write it.
std::string weight_format_name(WeightFormat format);
std::optional<WeightFormat> parse_weight_format(std::string_view name);

/// Exact bytes of a [rows, cols] tensor (a vector has one row) in a format of fixed size; Error{kInternal}
/// for another.
std::int64_t weight_bytes(WeightFormat format, std::int64_t rows, std::int64_t cols);

/// Fewest and most bytes of a [rows, cols] tensor in any format. Of a bitmap they are exact: those of a
/// matrix of zeros and of one without any.
struct ByteRange {
  std::int64_t min = 0, max = 0;
};
ByteRange weight_byte_range(WeightFormat format, std::int64_t rows, std::int64_t cols);

// Geometry that sizes follow from.

inline constexpr std::int64_t kCslTileRows = 128, kCslTileCols = 64;
inline constexpr std::int64_t kBankTileRows = 256, kBankTileCols = 64;
inline constexpr std::int64_t kPairsTileRows = 64, kPairsTileCols = 256;
/// Of a pairs24 tile (kernels/format/pairs24/FORMAT.md, "Bytes"): the least, of a tile without nonzeros;
/// masks, which one has that has much beside its pairs; the most, of a tile without zeros.
inline constexpr std::int64_t kPairsFixedBytes = 2832, kPairsMaskBytes = 512;
inline constexpr std::int64_t kPairsMostBytes =
    kPairsFixedBytes + kPairsMaskBytes + kPairsTileRows * kPairsTileCols * 2;
/// A bitmap's segment is 128 columns of one row; a chunk is 32 segments, counted row by row.
inline constexpr std::int64_t kBitmapSegmentCols = 128, kBitmapChunkSegments = 32;
/// Quantised matrices are stored in blocks of this many rows (the last one may have fewer).
inline constexpr std::int64_t kQuantBlockRows = 128;

/// Tiles (chunks) of a format of variable size. Behind their bytes stands a table of num_tiles + 1 uint32:
/// where each starts, in units of 16 bytes, and where the last one ends; padded with zeros to 16 bytes.
std::int64_t num_tiles(Encoding encoding, std::int64_t rows, std::int64_t cols);
std::int64_t tile_table_bytes(std::int64_t num_tiles);

/// Columns that share a scale; `cols` itself for one scale a row.
std::int64_t quant_group_cols(Encoding encoding, std::int64_t cols);
/// Bits of a quantised element, 4 or 8; 16 for the others.
int element_bits(Encoding encoding);

}  // namespace sluice
