// One pass over all layers: which sequences contribute which rows. Plain data.
#pragma once

#include <cstdint>
#include <vector>

namespace sluice::policy {

/// Consecutive rows of one sequence (DESIGN: segment). Row numbers count within the GPU batch.
struct Segment {
  std::int32_t seat = 0;
  std::int32_t num_tokens = 0;
  std::int64_t first_kv = 0;  ///< KV index of the first row
  std::int32_t first_row = 0;
  std::int32_t full_prefix = 0;
  bool decode = false;  ///< one row of a sequence whose prompt is done
  bool on_cpu = false;  ///< attended on the CPU lane
  std::int32_t first_wanted =
      0;  ///< rows [first_wanted, first_wanted + num_wanted) of the segment need logits
  std::int32_t num_wanted = 0;
  std::int32_t window_page = -1;  ///< where its off-GPU pages start in the GPU window
  std::int32_t stage_page = -1;   ///< where its disk pages start in the CPU stage
  std::int32_t cpu_row = -1;      ///< row in the CPU twin of the set
};

/// What one GPU batch does in the pass. All bytes are per decoder layer.
struct BatchPass {
  std::int32_t first_segment = 0, num_segments = 0;
  std::int32_t num_tokens = 0, num_wanted = 0, num_cpu_rows = 0;
  std::int32_t num_gpu_segments = 0;
  std::int32_t window_pages = 0, stage_pages = 0;
  std::int64_t read_kv_bytes = 0;                            ///< disk -> stage
  std::int64_t load_kv_bytes = 0;                            ///< CPU memory and stage -> window
  std::int64_t store_kv_bytes = 0;                           ///< window -> CPU memory and stage
  std::int64_t write_kv_bytes = 0;                           ///< stage -> disk
  std::int32_t load_kv_segments = 0, store_kv_segments = 0;  ///< those with such bytes
};

/// A waiting request that takes a free seat in this pass.
struct Admission {
  std::int32_t seat = 0;
  std::int32_t waiting = 0;  ///< index into the waiting list
};

struct Pass {
  std::int32_t number = 0;
  std::vector<Segment> segments;   ///< grouped by GPU batch
  std::vector<BatchPass> batches;  ///< num_gpu_batches
  std::vector<Admission> admissions;
  bool has_prefill = false;

  bool empty() const { return segments.empty(); }
};

}  // namespace sluice::policy
