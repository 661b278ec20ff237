#include "kernels/format/tiled_csl/flash_llm_import.h"

#include <fstream>
#include <memory>

#include "core/error.h"
#include "kernels/format/tiled_csl/tile_check.h"

namespace sluice::kernels {
namespace {

constexpr int kRows = kCslTileRows, kPlaces = kRows * kSharedCols;
constexpr std::int64_t kOffsetWords = 4;
constexpr const char* kFix = "the file is damaged, or of another shape: encode the matrix again";

std::span<const std::uint32_t> words_of(const FlashLlmMatrix& matrix, std::int64_t tile,
                                        const TileCheck& check) {
  const auto offset = matrix.tile_offsets.subspan(static_cast<std::size_t>(tile), 2);
  const std::int64_t first = offset[0] * kOffsetWords;
  const std::int64_t end = offset[1] * kOffsetWords;
  const auto size = static_cast<std::int64_t>(matrix.nz_weights.size());
  if (first < 0 || end < first || end > size)
    check.refuse(fmt::format("covers words {} to {} of {}", first, end, size));
  return matrix.nz_weights.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(end - first));
}

void check_shape(const FlashLlmMatrix& matrix, const std::string& name) {
  SLUICE_CHECK(
      matrix.rows > 0 && matrix.cols > 0 && matrix.rows % kRows == 0 && matrix.cols % kSharedCols == 0,
      Code::kInvalidArgument,
      fmt::format("tensor {}: {} x {} is no whole number of tiles of {} x {}", name, matrix.rows, matrix.cols,
                  kRows, kSharedCols),
      "give the shape that the matrix was encoded with");
}

}  // namespace

std::vector<std::uint16_t> import_flash_llm(const FlashLlmMatrix& matrix, const std::string& name) {
  check_shape(matrix, name);
  TileCheck check(matrix.rows, matrix.cols, kRows, DType::kF16, name, kFix);
  const std::int64_t tiles = check.num_tiles();
  const auto num_offsets = static_cast<std::int64_t>(matrix.tile_offsets.size());
  SLUICE_CHECK(num_offsets == tiles + 2, Code::kCorrupt,
               fmt::format("tensor {}: {} tile offsets instead of {}", name, num_offsets, tiles + 2), kFix);
  // The total stands there twice.
  const auto ends = matrix.tile_offsets.last(2);
  const auto size = static_cast<std::int64_t>(matrix.nz_weights.size());
  SLUICE_CHECK(matrix.tile_offsets[0] == 0 && ends[0] == ends[1] && ends[0] * kOffsetWords == size,
               Code::kCorrupt,
               fmt::format("tensor {}: tiles from word {} to {} (and {}) of {}", name,
                           matrix.tile_offsets[0] * kOffsetWords, ends[0] * kOffsetWords,
                           ends[1] * kOffsetWords, size),
               kFix);

  std::vector<std::uint16_t> values(static_cast<std::size_t>(matrix.rows * matrix.cols));
  const auto shared = std::make_unique<SharedTile>();
  const std::int64_t tiles_per_block = matrix.cols / kSharedCols;
  for (std::int64_t t = 0; t < tiles; ++t) {
    check.start(t);
    shared->values.fill(0);
    for (const std::uint32_t word : words_of(matrix, t, check)) {
      const auto position = static_cast<std::int16_t>(word >> 16);
      if (position < 0 || position >= kPlaces)
        check.refuse(fmt::format("position {} is none of its {} elements", position, kPlaces));
      auto value = static_cast<std::uint16_t>(word);
      if (value == 0x8000U) value = 0;  // their encoder drops it, another may not
      check.write(static_cast<std::uint32_t>(2 * position), value);
      shared->values[static_cast<std::size_t>(position)] = value;
    }
    check.finish();
    store_shared_tile(
        *shared, kRows, kSharedCols,
        values.data() + t / tiles_per_block * kRows * matrix.cols + t % tiles_per_block * kSharedCols,
        matrix.cols);
  }
  return values;
}

template <class T>
std::vector<T> read_flash_llm_file(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary | std::ios::ate);
  SLUICE_CHECK(in.good(), Code::kIo, fmt::format("{}: cannot be opened", file.string()),
               "give the path of a file written by Flash-LLM's encoder");
  const std::streamoff bytes = in.tellg();
  SLUICE_CHECK(
      bytes % std::streamoff{sizeof(T)} == 0, Code::kCorrupt,
      fmt::format("{}: {} bytes are no whole number of {}-byte words", file.string(), bytes, sizeof(T)),
      kFix);
  std::vector<T> content(static_cast<std::size_t>(bytes) / sizeof(T));
  in.seekg(0);
  in.read(reinterpret_cast<char*>(content.data()), bytes);
  SLUICE_CHECK(in.good() && in.gcount() == bytes, Code::kIo,
               fmt::format("{}: only {} of {} bytes could be read", file.string(), in.gcount(), bytes),
               "check the disk and the rights of the file");
  return content;
}
template std::vector<std::uint32_t> read_flash_llm_file(const std::filesystem::path& file);
template std::vector<std::int32_t> read_flash_llm_file(const std::filesystem::path& file);

}  // namespace sluice::kernels
