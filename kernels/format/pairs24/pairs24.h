// pairs24: of each four columns two nonzeros as sparse tensor cores take them, the others apart. The
// functions behind its row in the table of formats (kernels/format/format.h); layout: FORMAT.md. Pure
// functions, thread-safe.
#pragma once

#include "kernels/format/format.h"

namespace sluice::kernels {

std::int64_t pairs24_row_granule(std::int64_t cols);
std::int64_t pairs24_max_run_bytes(std::int64_t num_rows, std::int64_t cols);
std::int64_t encode_pairs24(const RowRun& run, std::span<std::byte> out, TileSizes& sizes);
void check_pairs24(const WeightView& weight, const std::string& tensor_name);
void expand_pairs24(const WeightView& weight, std::int64_t first_row, std::int64_t num_rows,
                    std::span<std::uint16_t> out);

}  // namespace sluice::kernels
