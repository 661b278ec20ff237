// Matrices in the files of Flash-LLM's own encoder (FORMAT.md, "Flash-LLM's files"): raw little-endian
// arrays of one fp16 matrix, NZWeights of uint32 words and TileOffsets of int32. Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace sluice::kernels {

struct FlashLlmMatrix {
  std::int64_t rows = 0, cols = 0;             ///< multiples of 128 and 64
  std::span<const std::uint32_t> nz_weights;   ///< whole tiles of value and position
  std::span<const std::int32_t> tile_offsets;  ///< tiles + 2, in units of 4 words
};

/// The fp16 values, row-major. encode_matrix (kernels/format/format.h) makes our format of them. Throws
/// Error{kInvalidArgument} for a shape that Flash-LLM does not store, and {kCorrupt} naming `name` and the
/// tile for offsets that are not ascending, positions outside the tile, two values at one position and values
/// that are not finite.
std::vector<std::uint16_t> import_flash_llm(const FlashLlmMatrix& matrix, const std::string& name);

/// All of a file of 32-bit numbers: NZWeights, or TileOffsets read as int32. Throws Error{kIo} naming the
/// file, {kCorrupt} if its size is no multiple of 4.
template <class T>
std::vector<T> read_flash_llm_file(const std::filesystem::path& file);

}  // namespace sluice::kernels
