#include "kernels/format/tile_table.h"

#include <cstring>
#include <limits>

#include "core/error.h"

namespace sluice::kernels {

std::vector<std::byte> encode_tile_table(const TileSizes& sizes, const std::string& tensor_name) {
  std::vector<std::byte> table(
      static_cast<std::size_t>(tile_table_bytes(static_cast<std::int64_t>(sizes.size()))));
  std::uint64_t start = 0;
  std::byte* to = table.data();
  for (const std::uint32_t size : sizes) {
    start += size;
    SLUICE_CHECK(start <= std::numeric_limits<std::uint32_t>::max(), Code::kUnsupported,
                 fmt::format("tensor {}: more than 64 GiB in one matrix", tensor_name),
                 "store this tensor in another format");
    to += sizeof(std::uint32_t);
    const auto end = static_cast<std::uint32_t>(start);
    std::memcpy(to, &end, sizeof(end));
  }
  return table;
}

TileTable::TileTable(const WeightView& weight)
    : num_tiles_(sluice::num_tiles(weight.format.encoding, weight.rows, weight.cols)) {
  const auto table_bytes = static_cast<std::size_t>(tile_table_bytes(num_tiles_));
  SLUICE_ASSERT(weight.data.size() >= table_bytes);
  tiles_ = weight.data.first(weight.data.size() - table_bytes);
  table_ = weight.data.data() + tiles_.size();
}

std::int64_t TileTable::start(std::int64_t index) const {
  std::uint32_t units = 0;
  std::memcpy(&units, table_ + index * static_cast<std::int64_t>(sizeof(units)), sizeof(units));
  return units * kTileAlign;
}

std::span<const std::byte> TileTable::tile(std::int64_t index) const {
  const std::int64_t first = start(index);
  return tiles_.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(start(index + 1) - first));
}

void TileTable::check(const std::string& tensor_name) const {
  const auto bytes = static_cast<std::int64_t>(tiles_.size());
  SLUICE_CHECK(start(0) == 0, Code::kCorrupt,
               fmt::format("tensor {}: tile 0 starts at byte {}, not at 0", tensor_name, start(0)),
               kDamagedStore);
  for (std::int64_t i = 0; i < num_tiles_; ++i) {
    SLUICE_CHECK(start(i + 1) >= start(i) && start(i + 1) <= bytes, Code::kCorrupt,
                 fmt::format("tensor {}: tile {} of {} covers bytes {} to {} of {}", tensor_name, i,
                             num_tiles_, start(i), start(i + 1), bytes),
                 kDamagedStore);
  }
  SLUICE_CHECK(start(num_tiles_) == bytes, Code::kCorrupt,
               fmt::format("tensor {}: its {} tiles end at byte {} of {}", tensor_name, num_tiles_,
                           start(num_tiles_), bytes),
               kDamagedStore);
}

TileTable checked_tiles(const WeightView& weight, const std::string& tensor_name) {
  const ByteRange range = weight_byte_range(weight.format, weight.rows, weight.cols);
  const auto bytes = static_cast<std::int64_t>(weight.data.size());
  SLUICE_CHECK(
      bytes >= range.min && bytes <= range.max, Code::kCorrupt,
      fmt::format("tensor {}: {} bytes instead of {} to {}", tensor_name, bytes, range.min, range.max),
      kDamagedStore);
  const TileTable table(weight);
  table.check(tensor_name);
  return table;
}

}  // namespace sluice::kernels
