#include "kernels/format/tiled_csl/tile_check.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/error.h"
#include "core/units.h"
#include "kernels/format/tiled_csl/word_list.h"

namespace sluice::kernels {
namespace {

constexpr int kRowBytes = kSharedCols * 2;

int row_of(std::uint32_t offset) { return static_cast<int>(offset / kRowBytes); }
int place_col(std::uint32_t offset) { return static_cast<int>(offset % kRowBytes / 2); }

}  // namespace

TileCheck::TileCheck(std::int64_t rows, std::int64_t cols, int tile_rows, DType dtype,
                     const std::string& tensor_name, const char* fix)
    : rows_(rows),
      cols_(cols),
      blocks_(div_up(rows, tile_rows)),
      tiles_per_block_(div_up(cols, kSharedCols)),
      tile_rows_(tile_rows),
      exponent_(dtype == DType::kF16 ? 0x7C00U : 0x7F80U),
      tensor_name_(tensor_name),
      fix_(fix) {}

void TileCheck::refuse(const std::string& problem) const {
  throw Error(Code::kCorrupt,
              fmt::format("tensor {}: tile {} of {}: {}", tensor_name_, tile_, num_tiles(), problem), fix_);
}

void TileCheck::start(std::int64_t tile) {
  tile_ = tile;
  const auto rows =
      static_cast<int>(std::min<std::int64_t>(tile_rows_, rows_ - tile / tiles_per_block_ * tile_rows_));
  const auto cols =
      static_cast<int>(std::min<std::int64_t>(kSharedCols, cols_ - tile % tiles_per_block_ * kSharedCols));
  inside_.fill(0);
  nonzeros_.fill(0);
  zeros_.fill(0);
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < cols; c += 8) {  // 8 columns stay together
      const std::uint64_t chunk = cols - c < 8 ? (1U << (cols - c)) - 1 : 0xFFU;
      inside_[static_cast<std::size_t>(r)] |= chunk << swizzled_col(r, c);
    }
  }
}

void TileCheck::write(std::uint32_t offset, std::uint16_t value) {
  const int row = row_of(offset);
  if (offset % 2 != 0 || row >= tile_rows_) {
    refuse(fmt::format("byte offset {} is none of an element of its {} rows of {} bytes", offset, tile_rows_,
                       kRowBytes));
  }
  const auto r = static_cast<std::size_t>(row);
  const std::uint64_t bit = std::uint64_t{1} << place_col(offset);
  if (value == 0) {
    zeros_[r] |= bit;
    return;
  }
  if ((value & exponent_) == exponent_ || value == 0x8000U) {
    refuse(fmt::format("value {:#06x} at byte offset {} is {}", value, offset,
                       value == 0x8000U ? "a negative zero" : "not finite"));
  }
  if ((inside_[r] & bit) == 0) {
    refuse(
        fmt::format("the nonzero at byte offset {} (row {}, column {} of the tile) lies outside the "
                    "{} x {} matrix",
                    offset, row, swizzled_col(row, place_col(offset)), rows_, cols_));
  }
  if ((nonzeros_[r] & bit) != 0) refuse(fmt::format("two nonzeros at byte offset {}", offset));
  nonzeros_[r] |= bit;
}

void TileCheck::write_words(std::span<const std::byte> words) {
  int num_zeros = 0;
  for (; !words.empty(); words = words.subspan(sizeof(std::uint32_t))) {
    std::uint32_t word = 0;
    std::memcpy(&word, words.data(), sizeof(word));
    const auto value = static_cast<std::uint16_t>(word);
    num_zeros += value == 0 ? 1 : 0;
    write(word >> 16, value);
  }
  if (num_zeros >= kVectorWords) refuse(fmt::format("{} words are zeros, at most 3 are needed", num_zeros));
}

void TileCheck::finish() const {
  for (std::size_t r = 0; r < zeros_.size(); ++r) {
    const std::uint64_t both = zeros_[r] & nonzeros_[r];
    if (both == 0) continue;
    refuse(fmt::format("a zero and a nonzero at byte offset {}",
                       static_cast<int>(r) * kRowBytes + 2 * std::countr_zero(both)));
  }
}

}  // namespace sluice::kernels
