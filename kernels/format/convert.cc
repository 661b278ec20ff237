#include "kernels/format/convert.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <optional>
#include <thread>

#include "core/error.h"
#include "core/log.h"
#include "core/units.h"
#include "kernels/format/encode_pipeline.h"
#include "kernels/format/format.h"

namespace sluice::kernels {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kMostEncoders = 8;
/// Pieces of encoded matrices are whole granules of rows; all of them together stay below about this.
constexpr std::int64_t kPieceMemory = 1_GiB;
constexpr std::int64_t kSparePieces = 4;  // read, or waiting to be written

bool is_plain(const CheckpointSource& source) {
  for (std::size_t i = 0; i < source.tensors.size(); ++i) {
    if (source.plan.formats[i].encoding != Encoding::kDense || source.prune[i].sparsity > 0) return false;
  }
  return true;
}

/// Source, values and stored bytes of the largest piece that a matrix must be cut into.
std::int64_t largest_piece(const StoreWriter& writer) {
  std::int64_t most = 1;
  for (const StoredTensor& tensor : writer.tensors()) {
    const FormatCodec& codec = codec_of(tensor.format.encoding);
    const std::int64_t rows =
        std::min(tensor.spec.rows, std::lcm(kCslTileRows, codec.row_granule(tensor.spec.cols)));
    const std::int64_t values = rows * tensor.spec.cols;
    most = std::max(most, 6 * values + codec.max_run_bytes(rows, tensor.spec.cols));
  }
  return most;
}
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::int64_t payload_bytes(const std::vector<StoredTensor>& tensors) {
  std::int64_t total = 0;
  for (const StoredTensor& tensor : tensors) total += tensor.bytes;
  return total;
}

}  // namespace

StoreLock lock_store(const std::filesystem::path& store) {
  std::optional<StoreLock> lock = StoreLock::try_acquire(store);
  if (lock) return std::move(*lock);
  log_info("{}: another process is writing this store, waiting for it", store.string());
  return StoreLock::acquire(store);
}

ConvertSummary convert_source(const CheckpointSource& source, StoreLock lock, const ConvertOptions& options) {
  const Clock::time_point start = Clock::now();
  StoreWriter writer(std::move(lock), source.plan, options.existing);
  ConvertSummary summary;
  summary.resumed_bytes = writer.resumed_bytes();
  ConvertProgress progress;
  for (std::size_t i = 0; i < source.tensors.size(); ++i) {
    const bool is_done = static_cast<std::int64_t>(i) < writer.next_tensor();
    (is_done ? progress.done_bytes : summary.source_bytes) += source.tensors[i].num_bytes;
  }
  progress.total_bytes = progress.done_bytes + summary.source_bytes;
  const std::int64_t done_before = progress.done_bytes;

  PipelineOptions pipeline;
  if (!is_plain(source)) {
    const auto cores = static_cast<std::int64_t>(std::max(1U, std::thread::hardware_concurrency()));
    const std::int64_t fit = kPieceMemory / largest_piece(writer) - kSparePieces;
    pipeline.num_encoders =
        static_cast<int>(std::clamp<std::int64_t>(fit, 1, std::min(cores, kMostEncoders)));
    pipeline.num_pieces = pipeline.num_encoders + static_cast<int>(kSparePieces);
  }
  pipeline.open_reader = [&] { return open_checkpoint(source.path); };
  pipeline.stop = options.stop;
  pipeline.on_written = [&](std::int64_t bytes) {
    progress.done_bytes += bytes;
    if (!options.progress) return;
    const double seconds = seconds_since(start);
    progress.bytes_per_sec = static_cast<double>(progress.done_bytes - done_before) / seconds;
    progress.left_sec =
        static_cast<double>(progress.total_bytes - progress.done_bytes) / progress.bytes_per_sec;
    options.progress(progress);
  };
  run_encode_pipeline(source, writer, pipeline);
  check_unchanged(source);

  for (const std::filesystem::path& file : source.tokenizer_files) writer.add_tokenizer_file(file);
  summary.manifest = writer.commit();
  summary.stored_bytes = payload_bytes(summary.manifest.tensors);
  summary.wall_sec = seconds_since(start);
  return summary;
}

ConvertSummary convert_checkpoint(const std::filesystem::path& source, const std::filesystem::path& store,
                                  const ConvertOptions& options) {
  return convert_source(open_source(source, options.source), lock_store(store), options);
}

}  // namespace sluice::kernels
