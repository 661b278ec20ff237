// Checkpoint to model store: what `sluice convert` does. Thread-safe; conversions into one store wait for
// each other.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>

#include "core/store/store_writer.h"
#include "kernels/format/checkpoint_source.h"

namespace sluice::kernels {

struct ConvertProgress {
  std::int64_t done_bytes = 0,
               total_bytes = 0;  ///< of the checkpoint's weights, those of an earlier run included
  double bytes_per_sec = 0;      ///< read by this run
  double left_sec = 0;
};

struct ConvertOptions {
  SourceOptions source;
  ExistingStore existing = ExistingStore::kRefuse;
  std::stop_token stop;  ///< ends the conversion with Error{kCancelled}; the next one continues
  /// Called on the caller's thread, after each piece of a few MiB and once at the end.
  std::function<void(const ConvertProgress&)> progress;
};

struct ConvertSummary {
  Manifest manifest;
  std::int64_t source_bytes = 0;   ///< read by this run
  std::int64_t stored_bytes = 0;   ///< payload of the store
  std::int64_t resumed_bytes = 0;  ///< of that, written by an earlier, interrupted run
  double wall_sec = 0;
};

/// Writes `store` from `source`, or finishes what an interrupted conversion of the same checkpoint left.
/// Memory: some 100 MB for a dense store that is not pruned, whatever the model; for others about 1 GiB, more
/// if five pieces of 256 rows of the widest matrix take more. Throws what open_source and StoreWriter throw,
/// Error{kInvalidArgument} for a value that fp16 cannot hold.
ConvertSummary convert_checkpoint(const std::filesystem::path& source, const std::filesystem::path& store,
                                  const ConvertOptions& options);

/// The same for a source that is open and a store that is locked.
ConvertSummary convert_source(const CheckpointSource& source, StoreLock lock, const ConvertOptions& options);

/// Takes the store's lock; says so if that means waiting for another process.
StoreLock lock_store(const std::filesystem::path& store);

}  // namespace sluice::kernels
