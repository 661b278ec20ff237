// K and V in host memory, and decode attention over them as the engine's cpu lane does it. Not thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "apps/attention_batch.h"

namespace sluice::apps {

class HostKv {
 public:
  /// The KV length of prompts of 512 in the middle of 64 outputs: the last page is half full.
  static constexpr std::int64_t kUsualPositions = 544;

  /// 32 heads of 128.
  HostKv(std::span<std::byte> pages, KvFormat format, std::int64_t positions = kUsualPositions,
         std::int64_t max_sequences = INT64_MAX)
      : batch_({.pages = pages,
                .layout = {32, 128, format},
                .positions = positions,
                .max_sequences = max_sequences}),
        q_(static_cast<std::size_t>(batch_.num_rows()) * 32 * 128, 0.1F),
        out_(q_.size()) {}

  /// The sequences of a GPU batch of a usual size.
  static constexpr std::int64_t kUsualStep = 32;

  /// All sequences once, in steps of so many. Returns the bytes of K and V.
  double attend(kernels::Stream& stream, std::int64_t sequences = kUsualStep) {
    const auto* q = reinterpret_cast<const std::byte*>(q_.data());
    batch_.run_steps(sequences, q, q, reinterpret_cast<std::byte*>(out_.data()), DType::kF32, stream);
    return batch_.kv_bytes();
  }

  /// How many of these steps that are.
  std::int64_t steps(std::int64_t sequences = kUsualStep) const {
    return (batch_.num_sequences() + sequences - 1) / sequences;
  }
  double kv_bytes() const { return batch_.kv_bytes(); }

 private:
  AttentionBatch batch_;
  std::vector<float> q_, out_;
};

}  // namespace sluice::apps
