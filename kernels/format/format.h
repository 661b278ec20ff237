// The table of stored weight formats: how each is encoded, checked, expanded and cut. A new format is a
// folder beside this file and one row in format.cc. Ids and sizes are in core/format.h. Pure functions,
// thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/format.h"
#include "core/model/spec.h"
#include "kernels/format/weight_view.h"

namespace sluice::kernels {

/// A run of a tensor's elements in row-major order, as a checkpoint holds them.
struct SourceRun {
  const TensorSpec* tensor = nullptr;
  DType dtype = DType::kF32;        ///< f16, bf16, f32 or f64
  std::span<const std::byte> data;  ///< whole elements, aligned to them
  std::int64_t first = 0;           ///< index of the first element in the tensor

  std::int64_t count() const { return static_cast<std::int64_t>(data.size()) / dtype_bytes(dtype); }
};

/// The run's elements as `stored` (f16 or bf16; the same type is copied, others are rounded to nearest even),
/// into the start of `out`, which may be the run's own memory if elements keep their size. Returns the bytes
/// written. Throws Error{kInvalidArgument} naming tensor, row, column and value for what cannot be held: NaN,
/// infinity, overflow; {kUnsupported} for another source type.
std::int64_t to_stored_values(const SourceRun& run, DType stored, std::span<std::byte> out);

/// Whole rows of a matrix on the way into its format: finite values of the 16-bit type that it decodes to.
struct RowRun {
  const TensorSpec* tensor = nullptr;
  DType dtype = DType::kF16;
  std::int64_t first_row = 0, num_rows = 0;
  std::span<const std::uint16_t> values;  ///< num_rows * tensor->cols
};

/// Bytes of each tile in units of 16, in the order of the tiles: what the table behind them is made from.
using TileSizes = std::vector<std::uint32_t>;

struct FormatCodec {
  Encoding encoding;

  /// Rows of a matrix with `cols` columns may be encoded, and expanded, from any multiple of this on.
  std::int64_t (*row_granule)(std::int64_t cols);
  /// Most bytes that `num_rows` rows encode to.
  std::int64_t (*max_run_bytes)(std::int64_t num_rows, std::int64_t cols);
  /// Encodes rows [first_row, first_row + num_rows) into the start of `out` and returns the bytes written;
  /// appends the sizes of their tiles, if the format has tiles. The runs of a tensor in order, and then the
  /// table of its tiles (kernels/format/tile_table.h), are exactly its stored bytes. All runs but the last
  /// have a multiple of row_granule rows; they may be encoded in parallel. Negative zero counts as zero.
  std::int64_t (*encode)(const RowRun& run, std::span<std::byte> out, TileSizes& sizes);
  /// Throws Error{kCorrupt} naming tensor and tile unless expand can read the bytes safely.
  void (*check)(const WeightView& weight, const std::string& tensor_name);
  /// Rows [first_row, first_row + num_rows) as 16-bit values of format.dtype, row-major, no padding.
  /// `first_row` is a multiple of row_granule, and so is `num_rows` unless the rows end the matrix.
  void (*expand)(const WeightView& weight, std::int64_t first_row, std::int64_t num_rows,
                 std::span<std::uint16_t> out);
};
const FormatCodec& codec_of(Encoding encoding);

/// The whole matrix in its format, in one piece: encode and table.
std::vector<std::byte> encode_matrix(const TensorSpec& tensor, WeightFormat format,
                                     std::span<const std::uint16_t> values);
/// The matrix as floats, row-major; `out` has rows * cols elements.
void decode_matrix(const WeightView& weight, std::span<float> out);

/// The format that a tensor of a checkpoint gets when nothing else is asked for: bf16 stays bf16, the others
/// become fp16. Throws Error{kUnsupported} naming the tensor for types that are no floating-point numbers.
WeightFormat dense_format_of(DType source, const TensorSpec& tensor);

}  // namespace sluice::kernels
