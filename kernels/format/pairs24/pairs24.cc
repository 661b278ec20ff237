#include "kernels/format/pairs24/pairs24.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>

#include "core/error.h"
#include "core/units.h"
#include "kernels/format/pairs24/unit.h"
#include "kernels/format/pairs24/unit_check.h"
#include "kernels/format/pairs24/unit_entries.h"
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
  std::array<StripEntries, kPairsStrips> entries;
  UnitLists lists;
  PairsLeft left = PairsLeft::kMasks;  // of the unit; until it is split, of the one ahead
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

/// False if there are too many entries.
template <PairsLeft kLeft>
bool split_strips(const std::uint16_t* values, std::int64_t stride, Scratch& scratch, PairsHead& head) {
  for (int s = 0; s < kPairsStrips; ++s) {
    const auto i = static_cast<std::size_t>(s);
    if (!split_strip<kLeft>(values + s * kPairsStripRows * stride, stride, scratch.words[i],
                            head.strips[s].metadata, scratch.entries[i]))
      return false;
  }
  return true;
}

bool may_have_entries(const UnitLists::Words& words) {
  return std::all_of(words.begin(), words.end(), [](const StripWords& strip) {
    int quads = 0;
    for (const StripWords::Lane& lane : strip.lanes) quads += std::popcount(lane.left);
    return !StripEntries::are_too_many_quads(quads);
  });
}

/// What is left goes to entries if they are not too many. A unit is mostly like the one ahead of it; else it
/// is split twice.
void split_unit(const std::uint16_t* values, std::int64_t stride, Scratch& scratch, PairsHead& head) {
  if (scratch.left == PairsLeft::kMasks) {
    split_strips<PairsLeft::kMasks>(values, stride, scratch, head);
    if (!may_have_entries(scratch.words)) return;
  }
  scratch.left = PairsLeft::kEntries;
  if (split_strips<PairsLeft::kEntries>(values, stride, scratch, head)) return;
  scratch.left = PairsLeft::kMasks;
  split_strips<PairsLeft::kMasks>(values, stride, scratch, head);
}

/// Returns the bytes of the unit.
std::int64_t encode_unit(const std::uint16_t* values, std::int64_t stride, Scratch& scratch, std::byte* out) {
  PairsHead head;
  split_unit(values, stride, scratch, head);
  scratch.lists.place(scratch.words);
  std::byte* lists = out + sizeof(head);
  if (scratch.left == PairsLeft::kEntries) {
    for (const StripEntries& entries : scratch.entries) lists = entries.write(lists);
  } else {
    PairsMasks masks;
    for (int s = 0; s < kPairsStrips; ++s) {
      for (int l = 0; l < kPairsLanes; ++l)
        masks.left[s][l] = scratch.words[static_cast<std::size_t>(s)].lanes[static_cast<std::size_t>(l)].left;
    }
    std::memcpy(lists, &masks, sizeof(masks));
    lists += sizeof(masks);
  }
  const std::int64_t list_bytes = scratch.lists.num_words() * std::int64_t{sizeof(std::uint32_t)};
  std::memset(lists, 0, static_cast<std::size_t>(list_bytes));
  for (int s = 0; s < kPairsStrips; ++s) {
    const StripWords& words = scratch.words[static_cast<std::size_t>(s)];
    const UnitLists::Strip& strip = scratch.lists.strip(s);
    const std::int64_t start = (lists - out) + strip.base * kPairsListStride;
    const std::uint32_t entries = scratch.left == PairsLeft::kMasks
                                      ? PairsStart::kMasks
                                      : scratch.entries[static_cast<std::size_t>(s)].count();
    head.starts[s] = PairsStart{static_cast<std::uint32_t>(start) / 4, entries}.pack();
    for (int l = 0; l < kPairsLanes; ++l) {
      head.strips[s].pairs[l] = words.lanes[static_cast<std::size_t>(l)].pairs;
      head.strips[s].jumps[l] = strip.jumps[static_cast<std::size_t>(l)].pack();
    }
    write_lists(words, strip, lists);
  }
  std::memcpy(out, &head, sizeof(head));
  return (lists - out) + list_bytes;
}

/// What one lane's list holds of a unit that was checked; bits of `left` name what is left of its quads.
void decode_lane(const std::byte* lists, const PairsStrip& fixed, std::uint32_t left, int lane,
                 std::uint16_t* strip_values) {
  const PairsJump jump = PairsJump::unpack(fixed.jumps[lane]);
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
      quads[r] |= take(left, 4 * step + r);
      std::memcpy(strip_values + pairs_row(lane, r) * kCols + step * kPairsStepCols +
                      pairs_quad(lane, r) * kPairsQuadCols,
                  &quads[r], sizeof(quads[r]));
    }
  }
}

void decode_unit(std::span<const std::byte> unit, UnitValues& values) {
  PairsHead head;
  std::memcpy(&head, unit.data(), sizeof(head));
  PairsMasks masks{};
  if (head.left() == PairsLeft::kMasks) std::memcpy(&masks, unit.data() + sizeof(head), sizeof(masks));
  for (int s = 0; s < kPairsStrips; ++s) {
    const PairsStart start = head.start(s);
    std::uint16_t* to = values.data() + s * kPairsStripRows * kCols;
    for (int l = 0; l < kPairsLanes; ++l)
      decode_lane(unit.data() + 4 * std::size_t{start.word}, head.strips[s], masks.left[s][l], l, to);
    if (start.left() == PairsLeft::kMasks) continue;
    const std::byte* entries = unit.data() + sizeof(head) + 4 * std::size_t{head.first_entry(s)};
    for (std::uint32_t i = 0; i < start.entries; ++i) {
      std::uint32_t bits = 0;
      std::memcpy(&bits, entries + 4 * std::size_t{i}, sizeof(bits));
      const PairsEntry entry = PairsEntry::unpack(bits);
      to[entry.row * kCols + entry.col] = entry.value;
    }
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
