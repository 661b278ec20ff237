// Attention over as many sequences as fit a piece of memory: what `bench` and `profile` measure. Not
// thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/kv_page.h"
#include "kernels/ops/attention.h"

namespace sluice::apps {

struct AttentionWork {
  std::span<std::byte> pages;  ///< of K and V, filled with finite numbers, where the stream reads
  KvLayout layout;
  std::int64_t num_heads = 32;
  std::int64_t positions = 1024;  ///< KV length of each sequence
  std::int64_t rows_each = 1;     ///< its last rows attend: 1 is decode, `positions` is a whole prompt
  std::int64_t max_sequences = INT64_MAX;

  /// Bytes of q, and of the result, of one sequence whose activations are of `dtype`.
  std::int64_t row_bytes(DType dtype) const {
    return rows_each * num_heads * layout.head_dim * dtype_bytes(dtype);
  }
};

class AttentionBatch {
 public:
  /// Throws Error{kInvalidArgument} if not one sequence fits the pages.
  explicit AttentionBatch(const AttentionWork& work);
  AttentionBatch(AttentionBatch&&) = default;
  AttentionBatch(const AttentionBatch&) = delete;  // segments point into the page table

  /// All sequences in one call. q and out hold num_sequences() * row_bytes(dtype) each, where the stream
  /// reads and writes.
  void run(const std::byte* q, std::byte* out, DType dtype, kernels::Stream& stream) const;

  /// Decode as the engine's CPU lane does it: step by step, of `sequences` each, the last rows' K and V (as
  /// many bytes as q each, or fewer) are written into the pages, then the step's rows attend.
  void run_steps(std::int64_t sequences, const std::byte* q, const std::byte* kv, std::byte* out, DType dtype,
                 kernels::Stream& stream) const;

  std::int64_t num_sequences() const { return num_sequences_; }
  std::int64_t num_rows() const { return num_sequences_ * work_.rows_each; }
  /// Bytes of K and V that one call must read.
  double kv_bytes() const;
  /// Multiply-adds of scores and values, two operations each, of causal rows that start at KV index 0.
  double causal_flops() const;

 private:
  void attend(std::span<const kernels::PagedSegment> segments, const std::byte* q, std::byte* out,
              DType dtype, kernels::Stream& stream) const;

  AttentionWork work_;
  std::int64_t num_sequences_ = 0;
  std::vector<const std::byte*> page_table_;
  std::vector<kernels::PagedSegment> segments_;
};

}  // namespace sluice::apps
