// Bank-CSL: the nonzeros of 256 x 64 tiles in 64 lists, each of which goes to one half of one bank of shared
// memory. The functions behind its row in the table of formats (kernels/format/format.h); layout: FORMAT.md.
// Pure functions, thread-safe.
#pragma once

#include "kernels/format/format.h"

namespace sluice::kernels {

enum class BankTileKind : std::uint8_t {
  kCsl,  ///< no slots: all nonzeros are words
  kD4,   ///< slots of value and 4 bits of distance to the row before
  kI8,   ///< slots of value and 8 bits of row
};

/// The first 16 bytes of a tile, as stored.
struct BankTileHeader {
  BankTileKind kind = BankTileKind::kCsl;
  std::uint8_t reserved = 0;
  std::uint16_t num_slots = 0;       ///< of each list; a multiple of 8, at most 256
  std::uint16_t overflow_words = 0;  ///< a multiple of 4
  std::uint16_t reserved2 = 0;
  std::uint32_t units = 0;       ///< bytes of this tile / 16, the header's included
  std::uint32_t next_units = 0;  ///< the same of the tile to its right; 0 for the last one of its rows
};
static_assert(sizeof(BankTileHeader) == 16);

/// Bytes of the indices of 8 slots of one list; their values take 16.
constexpr int bank_index_bytes(BankTileKind kind) { return kind == BankTileKind::kD4 ? 4 : 8; }

std::int64_t bank_csl_row_granule(std::int64_t cols);
std::int64_t bank_csl_max_run_bytes(std::int64_t num_rows, std::int64_t cols);
std::int64_t encode_bank_csl(const RowRun& run, std::span<std::byte> out, TileSizes& sizes);
void check_bank_csl(const WeightView& weight, const std::string& tensor_name);
void expand_bank_csl(const WeightView& weight, std::int64_t first_row, std::int64_t num_rows,
                     std::span<std::uint16_t> out);

}  // namespace sluice::kernels
