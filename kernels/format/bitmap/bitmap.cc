#include "kernels/format/bitmap/bitmap.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "core/error.h"
#include "core/units.h"
#include "kernels/format/quantised/scale.h"
#include "kernels/format/tile_table.h"

namespace sluice::kernels {
namespace {

std::int64_t segments_of(std::int64_t rows, std::int64_t cols) {
  return rows * div_up(cols, kBitmapSegmentCols);
}

detail::ChunkSegments chunk_segments(WeightFormat format, std::int64_t chunk, std::int64_t rows,
                                     std::int64_t cols) {
  const std::int64_t first = chunk * kBitmapChunkSegments;
  return {format.dtype, element_bits(format.encoding), cols, first,
          std::min(kBitmapChunkSegments, segments_of(rows, cols) - first)};
}

std::uint16_t load_16(std::span<const std::byte> bytes, std::int64_t offset) {
  std::uint16_t value = 0;
  std::memcpy(&value, bytes.data() + offset, sizeof(value));
  return value;
}

bool are_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

/// Checks one chunk, part by part; `place` begins every message.
class ChunkCheck {
 public:
  ChunkCheck(const detail::ChunkSegments& segments, std::span<const std::byte> chunk, std::string place)
      : segments_(segments), chunk_(chunk), place_(std::move(place)) {}

  void run() {
    check_masks();
    if (segments_.bits != 16) check_scales();
    check_values();
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(Code::kCorrupt, fmt::format("{}: {}", place_, what), kDamagedStore);
  }

  std::span<const std::byte> mask(std::int64_t segment) const {
    return chunk_.subspan(static_cast<std::size_t>(segment * detail::kSegmentMaskBytes),
                          static_cast<std::size_t>(detail::kSegmentMaskBytes));
  }

  /// Columns of a segment that the matrix has.
  std::int64_t length(std::int64_t segment) const {
    if (segment >= segments_.count) return 0;
    const std::int64_t in_row = (segments_.first + segment) % div_up(segments_.cols, kBitmapSegmentCols);
    return std::min(kBitmapSegmentCols, segments_.cols - in_row * kBitmapSegmentCols);
  }

  /// Counts the nonzeros, all of them inside the matrix, and compares the chunk's size with them.
  void check_masks() {
    const std::int64_t offset = detail::chunk_values_offset(segments_.bits);
    const auto size = static_cast<std::int64_t>(chunk_.size());
    if (size < offset) refuse(fmt::format("{} bytes, less than the {} in front of its values", size, offset));
    for (std::int64_t s = 0; s < kBitmapChunkSegments; ++s) {
      for (std::int64_t i = 0; i < detail::kSegmentMaskBytes; ++i) {
        const auto bits = std::to_integer<std::uint8_t>(mask(s)[static_cast<std::size_t>(i)]);
        const std::int64_t inside = std::clamp<std::int64_t>(length(s) - 8 * i, 0, 8);
        if ((bits >> inside) != 0) {
          refuse(fmt::format("segment {} has bits behind its {} columns", s, length(s)));
        }
        nonzeros_ += std::popcount(bits);
      }
    }
    const std::int64_t expected = offset + align_up(div_up(nonzeros_ * segments_.bits, 8), kTileAlign);
    if (size != expected) refuse(fmt::format("{} bytes, but {} with {} nonzeros", size, expected, nonzeros_));
  }

  void check_scales() const {
    const int limit = symmetric_limit(segments_.bits);
    for (std::int64_t s = 0; s < kBitmapChunkSegments; ++s) {
      const std::uint16_t scale = load_16(chunk_, detail::kChunkMaskBytes + 2 * s);
      const char* why = why_bad_scale(scale, 0.0F, limit, segments_.dtype);
      if (why != nullptr) {
        refuse(fmt::format("segment {}: its scale {:.9g} {}", s, value_of(scale, segments_.dtype), why));
      }
      if ((scale == 0) != are_zero(mask(s))) {
        refuse(fmt::format("segment {}: its scale is {:.9g}, but it holds {}", s,
                           value_of(scale, segments_.dtype), scale == 0 ? "nonzeros" : "none"));
      }
    }
  }

  void check_values() const {
    const auto values = chunk_.subspan(static_cast<std::size_t>(detail::chunk_values_offset(segments_.bits)));
    for (std::int64_t i = 0; i < nonzeros_; ++i) {
      if (segments_.bits == 16) {
        const std::uint16_t value = load_16(values, 2 * i);
        if (!is_finite_value(value, segments_.dtype) || (value & 0x7FFFU) == 0) {
          refuse(fmt::format("nonzero {} of {} is {:.9g}", i, nonzeros_, value_of(value, segments_.dtype)));
        }
      } else {
        const auto byte =
            std::to_integer<std::uint8_t>(values[static_cast<std::size_t>(i * segments_.bits / 8)]);
        const int code = segments_.bits == 8 ? byte : byte >> (4 * (i % 2)) & 15;
        if (code == 0) refuse(fmt::format("nonzero {} of {} has code 0", i, nonzeros_));
      }
    }
    const std::int64_t used = div_up(nonzeros_ * segments_.bits, 8);
    const bool has_half = nonzeros_ * segments_.bits % 8 != 0;
    if (!are_zero(values.subspan(static_cast<std::size_t>(used))) ||
        (has_half && std::to_integer<int>(values[static_cast<std::size_t>(used - 1)]) >> 4 != 0)) {
      refuse(fmt::format("its padding behind {} nonzeros is not zero", nonzeros_));
    }
  }

  const detail::ChunkSegments segments_;
  const std::span<const std::byte> chunk_;
  const std::string place_;
  std::int64_t nonzeros_ = 0;
};

}  // namespace

std::int64_t bitmap_row_granule(std::int64_t cols) {
  return kBitmapChunkSegments / std::gcd(div_up(cols, kBitmapSegmentCols), kBitmapChunkSegments);
}

std::int64_t bitmap_max_run_bytes(Encoding encoding, std::int64_t num_rows, std::int64_t cols) {
  return weight_byte_range({encoding, DType::kF16}, num_rows, cols).max -
         tile_table_bytes(num_tiles(encoding, num_rows, cols));
}

std::int64_t encode_bitmap(Encoding encoding, const RowRun& run, std::span<std::byte> out, TileSizes& sizes) {
  const std::int64_t cols = run.tensor->cols;
  SLUICE_ASSERT(run.first_row % bitmap_row_granule(cols) == 0);
  SLUICE_ASSERT(static_cast<std::int64_t>(out.size()) >= bitmap_max_run_bytes(encoding, run.num_rows, cols));
  std::byte* to = out.data();
  for (std::int64_t i = 0; i < num_tiles(encoding, run.num_rows, cols); ++i) {
    const std::int64_t bytes = detail::encode_bitmap_chunk(
        chunk_segments({encoding, run.dtype}, i, run.num_rows, cols), run.values.data(), to);
    sizes.push_back(static_cast<std::uint32_t>(bytes / kTileAlign));
    to += bytes;
  }
  return to - out.data();
}

void check_bitmap(const WeightView& weight, const std::string& tensor_name) {
  const TileTable table = checked_tiles(weight, tensor_name);
  for (std::int64_t i = 0; i < table.num_tiles(); ++i) {
    ChunkCheck(chunk_segments(weight.format, i, weight.rows, weight.cols), table.tile(i),
               fmt::format("tensor {}: chunk {} of {}", tensor_name, i, table.num_tiles()))
        .run();
  }
}

void expand_bitmap(const WeightView& weight, std::int64_t first_row, std::int64_t num_rows,
                   std::span<std::uint16_t> out) {
  SLUICE_ASSERT(static_cast<std::int64_t>(out.size()) == num_rows * weight.cols);
  SLUICE_ASSERT(first_row % bitmap_row_granule(weight.cols) == 0);
  const TileTable table(
      weight);  // it stands behind the chunks, so reading a little beyond the last one is safe
  const std::int64_t first = segments_of(first_row, weight.cols) / kBitmapChunkSegments;
  const std::int64_t count = num_tiles(weight.format.encoding, num_rows, weight.cols);
  for (std::int64_t i = 0; i < count; ++i) {
    detail::expand_bitmap_chunk(chunk_segments(weight.format, i, num_rows, weight.cols),
                                table.tile(first + i).data(), out.data());
  }
}

}  // namespace sluice::kernels
