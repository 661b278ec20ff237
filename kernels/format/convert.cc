#include "kernels/format/convert.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>

#include "core/error.h"
#include "core/log.h"
#include "kernels/format/encode_pipeline.h"

namespace sluice::kernels {
namespace {

using Clock = std::chrono::steady_clock;

constexpr unsigned kMostEncoders = 8;  // each holds a piece, and pieces are up to 256 rows of a matrix
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
  const bool is_dense = std::ranges::all_of(
      source.plan.formats, [](WeightFormat format) { return format.encoding == Encoding::kDense; });
  if (!is_dense) {
    pipeline.num_encoders =
        static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1U, kMostEncoders));
    pipeline.num_pieces = pipeline.num_encoders + 4;
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
