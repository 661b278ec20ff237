#include "kernels/format/encode_parallel.h"

#include <algorithm>
#include <atomic>

#include "core/error.h"
#include "core/units.h"
#include "kernels/device/cpu/thread_pool.h"
#include "kernels/format/tile_table.h"

namespace sluice::kernels {
namespace {

/// Dense bytes of a run, which a thread copies, encodes and throws away: they stay in its cache.
constexpr std::int64_t kRunBytes = 1_MiB;

std::int64_t rows_of_run(Encoding encoding, std::int64_t cols) {
  const std::int64_t granule = codec_of(encoding).row_granule(cols);
  return granule * std::max<std::int64_t>(1, kRunBytes / (granule * cols * 2));
}

}  // namespace

EncodedMatrix::EncodedMatrix(const TensorSpec& tensor, WeightFormat format, DType source,
                             std::span<const std::byte> values, ThreadPool& pool) {
  const std::int64_t cols = tensor.cols;
  const std::int64_t row_bytes = cols * dtype_bytes(source);
  SLUICE_ASSERT(std::ssize(values) == tensor.rows * row_bytes);
  const FormatCodec& codec = codec_of(format.encoding);
  const std::int64_t run_rows = rows_of_run(format.encoding, cols);
  const std::int64_t num_runs = div_up(tensor.rows, run_rows);
  runs_.resize(static_cast<std::size_t>(num_runs));
  std::vector<TileSizes> sizes(static_cast<std::size_t>(num_runs));
  // Each thread takes the next run and keeps its buffers: fresh pages cost as much as some encoders.
  std::atomic<std::int64_t> next_run = 0;
  pool.parallel_for(pool.num_threads(), 1, [&](std::int64_t /*begin*/, std::int64_t /*end*/) {
    std::vector<std::uint16_t> stored;
    std::vector<std::byte> out;
    for (std::int64_t run = next_run++; run < num_runs; run = next_run++) {
      const std::int64_t first = run * run_rows;
      const std::int64_t rows = std::min(run_rows, tensor.rows - first);
      stored.resize(static_cast<std::size_t>(rows * cols));
      to_stored_values({&tensor, source,
                        values.subspan(static_cast<std::size_t>(first * row_bytes),
                                       static_cast<std::size_t>(rows * row_bytes)),
                        first * cols},
                       format.dtype, std::as_writable_bytes(std::span(stored)));
      out.resize(static_cast<std::size_t>(codec.max_run_bytes(rows, cols)));
      const std::int64_t bytes = codec.encode({&tensor, format.dtype, first, rows, stored}, out,
                                              sizes[static_cast<std::size_t>(run)]);
      runs_[static_cast<std::size_t>(run)].assign(out.begin(), out.begin() + bytes);
    }
  });
  TileSizes all;
  for (const TileSizes& part : sizes) all.insert(all.end(), part.begin(), part.end());
  table_ = encode_tile_table(all, tensor.name);
  for (const std::vector<std::byte>& run : runs_) {
    starts_.push_back(bytes_);
    bytes_ += std::ssize(run);
  }
  bytes_ += std::ssize(table_);
}

void EncodedMatrix::write(std::span<std::byte> out, ThreadPool& pool) const {
  SLUICE_ASSERT(std::ssize(out) == bytes_);
  pool.parallel_for(std::ssize(runs_), 1, [&](std::int64_t run, std::int64_t /*end*/) {
    // A run of rows without a nonzero has no bytes at all.
    std::ranges::copy(runs_[static_cast<std::size_t>(run)],
                      out.begin() + starts_[static_cast<std::size_t>(run)]);
  });
  std::ranges::copy(table_, out.end() - std::ssize(table_));
}

void expand_matrix(const WeightView& weight, std::span<std::uint16_t> out, ThreadPool& pool) {
  SLUICE_ASSERT(std::ssize(out) == weight.rows * weight.cols);
  const FormatCodec& codec = codec_of(weight.format.encoding);
  const std::int64_t run_rows = rows_of_run(weight.format.encoding, weight.cols);
  pool.parallel_for(div_up(weight.rows, run_rows), 1, [&](std::int64_t run, std::int64_t /*end*/) {
    const std::int64_t first = run * run_rows;
    const std::int64_t rows = std::min(run_rows, weight.rows - first);
    codec.expand(weight, first, rows,
                 out.subspan(static_cast<std::size_t>(first * weight.cols),
                             static_cast<std::size_t>(rows * weight.cols)));
  });
}

}  // namespace sluice::kernels
