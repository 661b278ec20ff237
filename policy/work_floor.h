// The least time that a list of requests can take on a machine, by the rates of its parts: DESIGN section 9's
// bound for requests of any lengths. Pure, thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "policy/run_shape.h"

namespace sluice::policy {

/// A request as it ran: `generated` new tokens, of which it might have asked for more and so holds
/// `seat_tokens` of KV (Workload::seat_tokens).
struct SequenceWork {
  std::int64_t prompt_len = 0, generated = 0, seat_tokens = 0;
};

/// Bytes per second to the GPU and of CPU attention, each while the other runs, which bounds host memory,
/// too; operations per second of a large product.
struct MeasuredRates {
  double h2d_bytes_per_sec = 0, cpu_attention_bytes_per_sec = 0, flops = 0;
  double disk_read_bytes_per_sec = 0;  ///< 0: the disk is left out
  double pass_products_sec = 0;  ///< of one row with all weights: their way from GPU memory; 0: left out
};

struct WorkFloor {
  /// Passes that the requests need at least: a sequence takes one for each token and its pages all the while,
  /// so neither the longest nor all page-passes over the pages there are, nor all tokens over the seats, fit
  /// in fewer.
  std::int64_t least_passes = 0;
  double h2d_sec = 0;   ///< weights of that many passes, and KV that is streamed
  double cpu_sec = 0;   ///< KV that the CPU attends
  double gpu_sec = 0;   ///< products and attention, or the weights' way from GPU memory that often
  double disk_sec = 0;  ///< weights and KV on disk
  /// The prompts' computation, and after it the passes that the request of the fewest tokens still needs.
  double serial_sec = 0;
  /// One block after another, nothing of a prefill pass under a decode pass; 0 where they mix.
  double unmixed_sec = 0;
  /// The weights of that many passes, and the GPU's work only between them; 0 with prefetch.
  double unprefetched_sec = 0;
  double sec() const {
    return std::max({h2d_sec, cpu_sec, gpu_sec, disk_sec, serial_sec, unmixed_sec, unprefetched_sec});
  }
};

/// For whole sequences on the tiers in the shares of `shape`'s seats, all transfers and both processors
/// working all the time. Throws Error{kInvalidArgument} if a rate that is needed is 0.
WorkFloor work_floor(const RunShape& shape, std::span<const SequenceWork> work, const MeasuredRates& rates);

}  // namespace sluice::policy
