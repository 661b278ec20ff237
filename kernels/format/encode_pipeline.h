// The moving part of `convert`: reads a checkpoint in pieces, encodes them and hands them to the store's
// writer, all three at once. Two reader threads keep the source busy, one thread encodes and hashes, the
// caller's thread writes. Memory is a fixed number of pieces. One run at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>

#include "core/checkpoint/reader.h"
#include "core/store/store_writer.h"
#include "kernels/format/checkpoint_source.h"

namespace sluice::kernels {

struct PipelineOptions {
  std::int64_t piece_bytes = std::int64_t{8} << 20;  ///< of source or stored data, whichever is larger
  int num_pieces = 5;                                ///< in memory at once, each as source and as stored data
  int num_readers = 2;
  std::function<std::unique_ptr<CheckpointReader>()> open_reader;  ///< called once on each reader thread
  std::stop_token stop;                                       ///< asks the run to end with Error{kCancelled}
  std::function<void(std::int64_t stored_bytes)> on_written;  ///< after each piece, on the caller's thread
};

/// Writes every tensor from writer.next_tensor() on. Throws the first failure after all threads have ended;
/// what was finished stays with the writer.
void run_encode_pipeline(const CheckpointSource& source, StoreWriter& writer, const PipelineOptions& options);

}  // namespace sluice::kernels
