// The weights of a run in their tiers: says which disk blocks make up a piece of a streamed unit, copies
// pieces towards the GPU, and gives views of a unit to the operators. (resident_loader.h fills the tiers at
// start.)
//
// Fixed after construction, except for the checksums still to be verified, which belong to the h2d lane.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/store/checksum.h"
#include "kernels/device/stream.h"
#include "kernels/layers/decoder.h"
#include "offload/io/block_io.h"
#include "offload/memory/tier_memory.h"
#include "offload/weights/slab_ring.h"
#include "offload/weights/weight_source.h"
#include "policy/run_shape.h"

namespace sluice::offload {

class WeightStore {
 public:
  /// All arguments outlive the object.
  WeightStore(const WeightSource& source, const policy::RunShape& shape, const TierMemory& memory);

  /// Opens the files that streaming reads, on the disk_read lane's own BlockIo. Call once before the run.
  void open_files(BlockIo& io);

  /// The reads of one piece of a unit's disk part into its staging slot; appends to `out`.
  void read_requests(std::int64_t unit, std::int64_t piece, std::int64_t stage_slot,
                     std::vector<IoRequest>& out) const;
  /// Copies one piece (CPU-resident, or staged) into the GPU ring slot and returns its bytes. Verifies the
  /// checksum of each staged tensor the first time it passes. `seq` is the stream's open step.
  std::int64_t load_piece(std::int64_t unit, std::int64_t piece, std::int64_t weight_slot,
                          std::int64_t stage_slot, std::int64_t seq, kernels::Stream& stream);

  /// Copies all of a unit that rests in CPU memory into the ring slot, on a stream of any lane, before a run.
  void copy_resident(std::int64_t unit, std::int64_t weight_slot, kernels::Stream& stream) const;

  std::span<std::byte> slot(std::int64_t weight_slot) const;

  /// Views for the operators; `weight_slot` is where the unit's streamed tensors are (-1 if it has none).
  kernels::DecoderWeights decoder(std::int64_t unit, std::int64_t weight_slot) const;
  kernels::InputWeights input(std::int64_t weight_slot) const;
  kernels::OutputWeights output(std::int64_t weight_slot) const;

 private:
  struct DiskTensor {
    std::size_t tensor = 0;
    FileId file = 0;
    std::int64_t file_offset = 0;
    std::int64_t part_offset = 0;  // in the unit's disk part
    bool verified = false;
  };
  struct UnitDisk {
    std::vector<DiskTensor> tensors;  // by part_offset
    std::unique_ptr<StoreChecksum> running;
    std::size_t next_to_verify = 0;
  };

  struct NormIndex {
    std::int64_t gamma = -1, beta = -1;
  };
  struct LinearIndex {
    std::int64_t weight = -1, bias = -1;
  };
  struct DecoderIndex {
    NormIndex attn_norm, mlp_norm;
    LinearIndex q, k, v, out, fc1, fc2;
  };

  void index_tensors();
  const std::byte* address(std::int64_t tensor, std::int64_t weight_slot) const;
  kernels::WeightView matrix(std::int64_t tensor, std::int64_t weight_slot) const;
  ConstVectorView vector(std::int64_t tensor, std::int64_t weight_slot) const;
  kernels::NormWeights norm(const NormIndex& norm, std::int64_t weight_slot) const;
  kernels::LinearWeights linear(const LinearIndex& linear, std::int64_t weight_slot) const;

  void verify_staged(std::int64_t unit, std::int64_t first, std::span<const std::byte> bytes);

  const WeightSource& source_;
  const policy::RunShape& shape_;
  const TierMemory& memory_;
  std::vector<DecoderIndex> layers_;  // tensor numbers by role, -1 for what the model does not have
  NormIndex final_norm_;
  std::int64_t embed_tokens_ = -1, embed_positions_ = -1, project_in_ = -1, project_out_ = -1, vocab_ = -1;
  std::vector<UnitDisk> disk_;     // by unit
  std::optional<SlabRing> slabs_;  // of pageable weights; used by the h2d lane
};

}  // namespace sluice::offload
