// The moving part of `convert`: reads a checkpoint in pieces, encodes them and hands them to the store's
// writer, all three at once. Two reader threads keep the source busy, others encode and hash, the caller's
// thread writes. Memory is a fixed number of pieces. One run at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>

#include "core/checkpoint/reader.h"
#include "core/store/store_writer.h"
#include "kernels/device/cpu/thread_starter.h"
#include "kernels/format/checkpoint_source.h"

namespace sluice::kernels {

struct PipelineOptions {
  /// Of source or stored data, whichever is larger; a format that needs more rows at once gets them.
  std::int64_t piece_bytes = std::int64_t{8} << 20;
  int num_pieces = 5;  ///< in memory at once, each as source and as stored data
  int num_readers = 2;
  int num_encoders = 1;                                            ///< less than num_pieces
  std::function<std::unique_ptr<CheckpointReader>()> open_reader;  ///< called once on each reader thread
  ThreadMaker make_thread;                                         ///< empty: the system's
  std::stop_token stop;                                       ///< asks the run to end with Error{kCancelled}
  std::function<void(std::int64_t source_bytes)> on_written;  ///< after each piece, on the caller's thread
};

/// Writes every tensor from writer.next_tensor() on. Throws the first failure after all threads have ended;
/// what was finished stays with the writer.
void run_encode_pipeline(const CheckpointSource& source, StoreWriter& writer, const PipelineOptions& options);

}  // namespace sluice::kernels
