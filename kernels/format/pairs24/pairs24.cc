#include "kernels/format/pairs24/pairs24.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "core/error.h"
#include "core/units.h"
#include "kernels/format/pairs24/unit.h"
#include "kernels/format/pairs24/unit_check.h"
#include "kernels/format/pairs24/unit_lists.h"
#include "kernels/format/pairs24/unit_words.h"
#include "kernels/format/tile_table.h"

namespace sluice::kernels {
namespace {

constexpr int kRows = kPairsTileRows, kCols = kPairsTileCols;

using UnitValues = std::array<std::uint16_t, kRows * kCols>;

/// Rows (columns) of a unit that starts at `first` of `total`.
int part(std::int64_t total, std::int64_t first, int unit) {
  return static_cast<int>(std::min<std::int64_t>(unit, total - first));
}

struct Scratch {
  UnitValues edge;  // of a unit that is not whole, filled up with zeros
  UnitLists::Words words;
  UnitLists lists;
};

/// The lists of one strip to `out`, where the first list of the unit starts.
void write_lists(const StripWords& words, const UnitLists::Strip& strip, std::byte* out) {
  out += strip.base * kPairsListStride;
  for (int l = 0; l < kPairsLanes; ++l) {
    const StripWords::Lane& lane = words.lanes[static_cast<std::size_t>(l)];
    const PairsJump& jump = strip.jumps[static_cast<std::size_t>(l)];
    const auto write = [&](int first, int last, std::byte* to) {
      for (int i = first; i < last; ++i, to += kPairsListStride)
        std::memcpy(to, &lane.words[static_cast<std::size_t>(i)], sizeof(std::uint32_t));
    };
    const int ahead = lane.ahead[static_cast<std::size_t>(jump.step)];
    write(0, ahead, out + 4 * l + jump.offset * kPairsListStride);
    write(ahead, lane.count(), out + 4 * std::int64_t{jump.target});
  }
}

/// Returns the bytes of the unit.
std::int64_t encode_unit(const std::uint16_t* values, std::int64_t stride, Scratch& scratch, std::byte* out) {
  PairsHead head;
  for (int s = 0; s < kPairsStrips; ++s) {
    split_strip(values + s * kPairsStripRows * stride, stride, scratch.words[static_cast<std::size_t>(s)],
                head.strips[s]);
  }
  scratch.lists.place(scratch.words);
  const std::int64_t list_bytes = scratch.lists.num_words() * std::int64_t{sizeof(std::uint32_t)};
  std::byte* lists = out + sizeof(head);
  std::memset(lists, 0, static_cast<std::size_t>(list_bytes));
  for (int s = 0; s < kPairsStrips; ++s) {
    const UnitLists::Strip& strip = scratch.lists.strip(s);
    head.starts[s] =
        static_cast<std::uint32_t>(sizeof(head)) + static_cast<std::uint32_t>(strip.base * kPairsListStride);
    for (int l = 0; l < kPairsLanes; ++l)
      head.strips[s].jumps[l] = strip.jumps[static_cast<std::size_t>(l)].pack();
    write_lists(scratch.words[static_cast<std::size_t>(s)], strip, lists);
  }
  std::memcpy(out, &head, sizeof(head));
  return static_cast<std::int64_t>(sizeof(head)) + list_bytes;
}

/// What one lane holds of a unit that was checked.
void decode_lane(std::span<const std::byte> unit, std::uint32_t start, const PairsStrip& fixed, int lane,
                 std::uint16_t* strip_values) {
  const PairsJump jump = PairsJump::unpack(fixed.jumps[lane]);
  const std::byte* lists = unit.data() + start;
  const std::byte* at = lists + 4 * lane + jump.offset * kPairsListStride;
  const auto take = [&at](std::uint32_t bits, int bit) {
    std::uint32_t word = 0;
    if ((bits >> bit & 1U) == 0) return word;
    std::memcpy(&word, at, sizeof(word));
    at += kPairsListStride;
    return word;
  };
  for (int step = 0; step < kPairsSteps; ++step) {
    if (step == jump.step) at = lists + 4 * std::int64_t{jump.target};
    std::uint64_t quads[kPairsRegisters];
    for (int r = 0; r < kPairsRegisters; ++r) {
      const PairsMetadata m = PairsMetadata::of(step, pairs_row(lane, r), pairs_quad(lane, r));
      const std::uint32_t places = fixed.metadata[m.lane][m.word] >> m.bit;
      const std::uint64_t pair = take(fixed.pairs[lane], 4 * step + r);
      quads[r] = (pair & 0xFFFFU) << (16 * (places & 3U)) | pair >> 16 << (16 * (places >> 2 & 3U));
    }
    for (int r = 0; r < kPairsRegisters; ++r) {
      quads[r] |= take(fixed.left[lane], 4 * step + r);
      std::memcpy(strip_values + pairs_row(lane, r) * kCols + step * kPairsStepCols +
                      pairs_quad(lane, r) * kPairsQuadCols,
                  &quads[r], sizeof(quads[r]));
    }
  }
}

void decode_unit(std::span<const std::byte> unit, UnitValues& values) {
  PairsHead head;
  std::memcpy(&head, unit.data(), sizeof(head));
  for (int s = 0; s < kPairsStrips; ++s) {
    for (int l = 0; l < kPairsLanes; ++l)
      decode_lane(unit, head.starts[s], head.strips[s], l, values.data() + s * kPairsStripRows * kCols);
  }
}

}  // namespace

std::int64_t pairs24_row_granule(std::int64_t) { return kRows; }

std::int64_t pairs24_max_run_bytes(std::int64_t num_rows, std::int64_t cols) {
  return weight_byte_range({Encoding::kPairs24, DType::kF16}, num_rows, cols).max -
         tile_table_bytes(num_tiles(Encoding::kPairs24, num_rows, cols));
}

std::int64_t encode_pairs24(const RowRun& run, std::span<std::byte> out, TileSizes& sizes) {
  const std::int64_t cols = run.tensor->cols;
  SLUICE_ASSERT(run.first_row % kRows == 0);
  SLUICE_ASSERT(static_cast<std::int64_t>(run.values.size()) == run.num_rows * cols);
  SLUICE_ASSERT(static_cast<std::int64_t>(out.size()) >= pairs24_max_run_bytes(run.num_rows, cols));
  const auto scratch = std::make_unique<Scratch>();
  std::byte* to = out.data();
  for (std::int64_t r = 0; r < run.num_rows; r += kRows) {
    for (std::int64_t c = 0; c < cols; c += kCols) {
      const std::uint16_t* values = run.values.data() + r * cols + c;
      std::int64_t stride = cols;
      const int rows_here = part(run.num_rows, r, kRows);
      const int cols_here = part(cols, c, kCols);
      if (rows_here < kRows || cols_here < kCols) {
        scratch->edge.fill(0);
        for (int i = 0; i < rows_here; ++i)
          std::copy_n(values + i * cols, cols_here, scratch->edge.data() + i * kCols);
        values = scratch->edge.data();
        stride = kCols;
      }
      const std::int64_t bytes = encode_unit(values, stride, *scratch, to);
      sizes.push_back(static_cast<std::uint32_t>(bytes / kTileAlign));
      to += bytes;
    }
  }
  return to - out.data();
}

void check_pairs24(const WeightView& weight, const std::string& tensor_name) {
  const TileTable table = checked_tiles(weight, tensor_name);
  const std::int64_t per_block = div_up(weight.cols, kCols);
  for (std::int64_t i = 0; i < table.num_tiles(); ++i) {
    const std::string problem =
        why_damaged(table.tile(i), part(weight.rows, i / per_block * kRows, kRows),
                    part(weight.cols, i % per_block * kCols, kCols), weight.format.dtype);
    SLUICE_CHECK(problem.empty(), Code::kCorrupt,
                 fmt::format("tensor {}: unit {} of {}: {}", tensor_name, i, table.num_tiles(), problem),
                 kDamagedStore);
  }
}

void expand_pairs24(const WeightView& weight, std::int64_t first_row, std::int64_t num_rows,
                    std::span<std::uint16_t> out) {
  SLUICE_ASSERT(first_row % kRows == 0);
  SLUICE_ASSERT(static_cast<std::int64_t>(out.size()) == num_rows * weight.cols);
  const TileTable table(weight);
  const auto values = std::make_unique_for_overwrite<UnitValues>();
  std::int64_t index = first_row / kRows * div_up(weight.cols, kCols);
  for (std::int64_t r = 0; r < num_rows; r += kRows) {
    for (std::int64_t c = 0; c < weight.cols; c += kCols, ++index) {
      decode_unit(table.tile(index), *values);
      for (int i = 0; i < part(num_rows, r, kRows); ++i) {
        std::copy_n(values->data() + i * kCols, part(weight.cols, c, kCols),
                    out.data() + (r + i) * weight.cols + c);
      }
    }
  }
}

}  // namespace sluice::kernels
