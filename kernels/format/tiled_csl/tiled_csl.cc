#include "kernels/format/tiled_csl/tiled_csl.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>

#include "core/error.h"
#include "core/units.h"
#include "kernels/format/tile_table.h"
#include "kernels/format/tiled_csl/shared_tile.h"
#include "kernels/format/tiled_csl/tile_check.h"
#include "kernels/format/tiled_csl/word_list.h"

namespace sluice::kernels {
namespace {

constexpr int kRows = kCslTileRows;

void list_nonzeros(const SharedTile& tile, WordList& words) {
  words.clear();
  for (int r = 0; r < kRows; ++r) {
    const int row = r * kSharedCols;
    for (std::uint64_t bits = tile.nonzeros[static_cast<std::size_t>(r)]; bits != 0; bits &= bits - 1) {
      const int place = row + std::countr_zero(bits);
      words.add(place, tile.values[static_cast<std::size_t>(place)]);
    }
  }
}

}  // namespace

std::int64_t tiled_csl_row_granule(std::int64_t) { return kRows; }

std::int64_t tiled_csl_max_run_bytes(std::int64_t num_rows, std::int64_t cols) {
  return weight_byte_range({Encoding::kTiledCsl, DType::kF16}, num_rows, cols).max -
         tile_table_bytes(num_tiles(Encoding::kTiledCsl, num_rows, cols));
}

std::int64_t encode_tiled_csl(const RowRun& run, std::span<std::byte> out, TileSizes& sizes) {
  const std::int64_t cols = run.tensor->cols;
  SLUICE_ASSERT(run.first_row % kRows == 0);
  SLUICE_ASSERT(static_cast<std::int64_t>(run.values.size()) == run.num_rows * cols);
  SLUICE_ASSERT(static_cast<std::int64_t>(out.size()) >= tiled_csl_max_run_bytes(run.num_rows, cols));
  const auto tile = std::make_unique_for_overwrite<SharedTile>();
  const auto words = std::make_unique<WordList>();
  std::byte* to = out.data();
  for (std::int64_t r = 0; r < run.num_rows; r += kRows) {
    for (std::int64_t c = 0; c < cols; c += kSharedCols) {
      load_shared_tile(run.values.data() + r * cols + c, cols, tile_part(run.num_rows, r, kRows),
                       tile_part(cols, c, kSharedCols), kRows, *tile);
      list_nonzeros(*tile, *words);
      words->pad(std::span(tile->nonzeros).first(kRows));
      const std::int64_t bytes = words->num_words() * std::int64_t{sizeof(std::uint32_t)};
      words->write(to);
      sizes.push_back(static_cast<std::uint32_t>(bytes / kTileAlign));
      to += bytes;
    }
  }
  return to - out.data();
}

void check_tiled_csl(const WeightView& weight, const std::string& tensor_name) {
  const TileTable table = checked_tiles(weight, tensor_name);
  TileCheck tile(weight.rows, weight.cols, kRows, weight.format.dtype, tensor_name, kDamagedStore);
  for (std::int64_t i = 0; i < table.num_tiles(); ++i) {
    tile.start(i);
    tile.write_words(table.tile(i));
    tile.finish();
  }
}

void expand_tiled_csl(const WeightView& weight, std::int64_t first_row, std::int64_t num_rows,
                      std::span<std::uint16_t> out) {
  SLUICE_ASSERT(first_row % kRows == 0);
  SLUICE_ASSERT(static_cast<std::int64_t>(out.size()) == num_rows * weight.cols);
  const TileTable table(weight);
  const auto tile = std::make_unique_for_overwrite<SharedTile>();
  std::int64_t index = first_row / kRows * div_up(weight.cols, kSharedCols);
  for (std::int64_t r = 0; r < num_rows; r += kRows) {
    for (std::int64_t c = 0; c < weight.cols; c += kSharedCols, ++index) {
      std::fill_n(tile->values.data(), kRows * kSharedCols, std::uint16_t{0});
      scatter_words(table.tile(index), *tile);
      store_shared_tile(*tile, tile_part(num_rows, r, kRows), tile_part(weight.cols, c, kSharedCols),
                        out.data() + r * weight.cols + c, weight.cols);
    }
  }
}

}  // namespace sluice::kernels
