#include "kernels/format/random_matrix.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/error.h"
#include "core/units.h"
#include "kernels/device/cpu/thread_pool.h"
#include "kernels/format/random_weights.h"
#include "kernels/format/tile_table.h"

namespace sluice::kernels {
namespace {

/// The smallest normal number: what stands for a value that rounds to zero where the mask has none.
std::uint16_t least_of(DType dtype) { return dtype == DType::kF16 ? 0x0400U : 0x0080U; }

/// Runs of whole granules; the buffers of the thread that makes them stay between runs.
class RunMaker {
 public:
  explicit RunMaker(const RandomMatrix& matrix)
      : matrix_(matrix),
        codec_(codec_of(matrix.format.encoding)),
        mask_key_(random_key(mask_name(matrix), matrix.seed)),
        // Of a triangular t in -65536..65536, P(|t| < x) = 1 - (1 - x / 65536)^2.
        limit_(static_cast<float>(65536.0 * (1.0 - std::sqrt(1.0 - matrix.sparsity)))) {}

  /// The stored bytes of the rows; valid until the next call.
  std::span<const std::byte> make(std::int64_t first_row, std::int64_t num_rows, TileSizes& tiles) {
    const std::int64_t cols = matrix_.tensor.cols;
    const auto count = static_cast<std::size_t>(num_rows * cols);
    values_.resize(count);
    mask_.resize(count);
    random_tensor_range(matrix_.tensor, matrix_.spec, {Encoding::kDense, matrix_.format.dtype}, matrix_.seed,
                        first_row * cols * 2, std::as_writable_bytes(std::span(values_)));
    // Sizes are counted once for all layers, so zeros may be where the mask has them only.
    if (matrix_.sparsity > 0 || !has_fixed_size(matrix_.format.encoding)) {
      const std::uint16_t least = least_of(matrix_.format.dtype);
      for (std::uint16_t& value : values_) value = (value & 0x7FFFU) == 0 ? least : value;
    }
    if (matrix_.sparsity > 0) {
      detail::random_floats(mask_key_, first_row * cols, static_cast<std::int64_t>(count), 1.0F, 0.0F,
                            mask_.data());
      for (std::size_t i = 0; i < count; ++i) {  // without a branch, which would be wrong every third time
        const std::uint16_t kept = std::fabs(mask_[i]) < limit_ ? 0 : 0xFFFF;
        values_[i] &= kept;
      }
    }
    stored_.resize(static_cast<std::size_t>(codec_.max_run_bytes(num_rows, cols)));
    const std::int64_t bytes =
        codec_.encode({&matrix_.tensor, matrix_.format.dtype, first_row, num_rows, values_}, stored_, tiles);
    return std::span(stored_).first(static_cast<std::size_t>(bytes));
  }

 private:
  const RandomMatrix& matrix_;
  const FormatCodec& codec_;
  std::uint64_t mask_key_;
  float limit_;
  std::vector<std::uint16_t> values_;
  std::vector<float> mask_;
  std::vector<std::byte> stored_;
};

/// The granules of a matrix, and where tiles and bytes of each begin.
struct Runs {
  explicit Runs(const RandomMatrix& matrix)
      : rows(matrix.tensor.rows),
        granule(codec_of(matrix.format.encoding).row_granule(matrix.tensor.cols)),
        count(div_up(rows, granule)) {}
  std::int64_t num_rows(std::int64_t run) const { return std::min(granule, rows - run * granule); }

  std::int64_t rows, granule, count;
};

}  // namespace

std::string mask_name(const RandomMatrix& matrix) {
  std::string name = matrix.tensor.name;
  const std::string layer = fmt::format(".{}.", matrix.tensor.unit - 1);
  if (const std::size_t at = name.find(layer); at != name.npos) name.erase(at, layer.size() - 1);
  return fmt::format("{} [{}, {}] {}", name, matrix.tensor.rows, matrix.tensor.cols, matrix.sparsity);
}

TileSizes random_tiles(const RandomMatrix& matrix, ThreadPool& pool) {
  if (has_fixed_size(matrix.format.encoding)) return {};
  const Runs runs(matrix);
  std::vector<TileSizes> parts(static_cast<std::size_t>(runs.count));
  pool.parallel_for(runs.count, 4, [&](std::int64_t begin, std::int64_t end) {
    RunMaker maker(matrix);
    for (std::int64_t run = begin; run < end; ++run) {
      maker.make(run * runs.granule, runs.num_rows(run), parts[static_cast<std::size_t>(run)]);
    }
  });
  TileSizes tiles;
  for (const TileSizes& part : parts) tiles.insert(tiles.end(), part.begin(), part.end());
  return tiles;
}

std::int64_t bytes_of_tiles(const TileSizes& tiles) {
  return std::accumulate(tiles.begin(), tiles.end(), std::int64_t{0}) * kTileAlign;
}

void random_matrix(const RandomMatrix& matrix, const TileSizes& tiles, ThreadPool& pool,
                   std::span<std::byte> out) {
  const std::vector<std::byte> table = encode_tile_table(tiles, matrix.tensor.name);
  const auto data_bytes = static_cast<std::int64_t>(out.size() - table.size());
  std::ranges::copy(table, out.begin() + data_bytes);

  // Where each run's bytes begin. A run's tiles are the next ones of the matrix.
  const Runs runs(matrix);
  const std::int64_t cols = matrix.tensor.cols;
  const auto tiles_before = [&](std::int64_t run) {
    return num_tiles(matrix.format.encoding, std::min(run * runs.granule, runs.rows), cols);
  };
  std::vector<std::int64_t> starts(static_cast<std::size_t>(runs.count) + 1);
  for (std::int64_t run = 0; run < runs.count; ++run) {
    std::int64_t bytes = 0;
    if (tiles.empty()) {
      bytes = codec_of(matrix.format.encoding).max_run_bytes(runs.num_rows(run), cols);
    } else {
      for (std::int64_t t = tiles_before(run); t < tiles_before(run + 1); ++t) {
        bytes += tiles[static_cast<std::size_t>(t)] * kTileAlign;
      }
    }
    starts[static_cast<std::size_t>(run) + 1] = starts[static_cast<std::size_t>(run)] + bytes;
  }
  SLUICE_ASSERT(starts.back() == data_bytes);
  pool.parallel_for(runs.count, 4, [&](std::int64_t begin, std::int64_t end) {
    RunMaker maker(matrix);
    TileSizes ignored;
    for (std::int64_t run = begin; run < end; ++run) {
      ignored.clear();
      const auto bytes = maker.make(run * runs.granule, runs.num_rows(run), ignored);
      const std::int64_t start = starts[static_cast<std::size_t>(run)];
      SLUICE_ASSERT(start + std::ssize(bytes) == starts[static_cast<std::size_t>(run) + 1]);
      std::ranges::copy(bytes, out.begin() + start);
    }
  });
}

}  // namespace sluice::kernels
