// Tiled-CSL (Flash-LLM, Xia et al. 2023): the nonzeros of 128 x 64 tiles as words of value and place. The
// functions behind its row in the table of formats (kernels/format/format.h); layout: FORMAT.md. Pure
// functions, thread-safe.
#pragma once

#include "kernels/format/format.h"

namespace sluice::kernels {

std::int64_t tiled_csl_row_granule(std::int64_t cols);
std::int64_t tiled_csl_max_run_bytes(std::int64_t num_rows, std::int64_t cols);
std::int64_t encode_tiled_csl(const RowRun& run, std::span<std::byte> out, TileSizes& sizes);
void check_tiled_csl(const WeightView& weight, const std::string& tensor_name);
void expand_tiled_csl(const WeightView& weight, std::int64_t first_row, std::int64_t num_rows,
                      std::span<std::uint16_t> out);

}  // namespace sluice::kernels
