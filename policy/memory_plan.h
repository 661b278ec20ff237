// Every reservation of the three tiers, to the byte: offload allocates exactly this list. Outside it are the
// schedules' own storage (a few MB), prompts and results. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/tier.h"
#include "policy/run_shape.h"

namespace sluice::policy {

/// What a reservation is for. A purpose has at most one reservation per tier.
enum class Purpose : std::uint8_t {
  kWeights,      ///< resident weights (on disk: of synthetic models; a store is read in place)
  kWeightSlots,  ///< GPU ring of streamed units
  kWeightStage,  ///< CPU slots between disk and GPU
  kKv,           ///< pages of the seats
  kKvWindows,    ///< GPU windows for off-GPU pages attended there
  kKvStage,      ///< CPU stage for disk pages
  kActivations,  ///< residual streams
  kSets,         ///< q, k, v and attention output of the items in flight, and their CPU twins
  kScratch,      ///< workspace of one GPU lane step
  kInputs,       ///< token ids, positions, sampling parameters
  kResults,      ///< chosen tokens and log-probs
  kWeightSlabs,  ///< CPU slabs between pageable weights and the GPU
};
std::string_view purpose_name(Purpose purpose);

struct PlannedBytes {
  Purpose purpose = Purpose::kWeights;
  Tier tier = Tier::kGpu;
  std::int64_t bytes = 0;
};

struct MemoryPlan {
  std::vector<PlannedBytes> items;  ///< only those above zero
  PerTier<std::int64_t> total{};
  std::int64_t bytes(Purpose purpose, Tier tier) const;
};

/// Byte offsets inside one set (GPU) or its CPU twin, which holds `rows` rows.
struct SetLayout {
  std::int64_t q = 0, k = 0, v = 0, attn = 0, total = 0;
};
SetLayout set_layout(const RunShape& shape, std::int64_t rows);

/// Offsets inside the GPU scratch.
struct ScratchLayout {
  std::int64_t workspace = 0;  ///< traits.workspace_bytes
  std::int64_t expanded = 0;   ///< traits.expanded_bytes
  std::int64_t normed = 0, embedded = 0;
  std::int64_t hidden = 0;  ///< MLP chunk; shares its bytes with:
  std::int64_t rows = 0, head_normed = 0, projected = 0, logits = 0, sample = 0;  ///< head chunk
  std::int64_t total = 0;
};
ScratchLayout scratch_layout(const RunShape& shape);

/// Offsets inside the inputs of one GPU batch (two passes' worth are kept), and inside its results.
struct InputLayout {
  std::int64_t ids = 0, positions = 0, wanted_rows = 0, sample_rows = 0, total = 0;
};
InputLayout input_layout(const RunShape& shape);
struct ResultLayout {
  std::int64_t rows = 0, top = 0, total = 0;
};
ResultLayout result_layout(const RunShape& shape);

/// `weights_on_disk` is true for synthetic models, whose disk weights are written to the disk directory.
MemoryPlan make_memory_plan(const RunShape& shape, bool weights_on_disk);
/// What of it the weights take: themselves, slots, stages and slabs.
PerTier<std::int64_t> weight_memory(const RunShape& shape, bool weights_on_disk);

/// What pinned host memory takes of a device's own, beside any plan: its page table has 8 bytes for every 4
/// KiB (an nvidia-h200: 0.203 GiB with 103.9 GiB pinned, and the same share in 24 runs).
constexpr std::int64_t page_table_bytes(std::int64_t pinned_bytes) { return pinned_bytes / 512; }

/// The plan as a table for people, and one tier of it: "gpu: 3.00 GiB = weights 2.00 GiB + scratch 1.00 GiB".
std::string to_string(const MemoryPlan& plan);
std::string to_string(const MemoryPlan& plan, Tier tier);

}  // namespace sluice::policy
