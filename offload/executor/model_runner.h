// Gives every step of a schedule its meaning for a decoder model: which bytes a transfer copies and which
// operators a computation calls, on the stream of the step's lane. Lanes call it at once; the schedule keeps
// them out of each other's memory.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/device/cpu/thread_pool.h"
#include "kernels/device/device.h"
#include "kernels/device/stream.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/sample.h"
#include "offload/executor/executor.h"
#include "offload/kv_cache/kv_cache.h"
#include "offload/memory/host_weights.h"
#include "offload/memory/tier_memory.h"
#include "offload/weights/weight_store.h"
#include "policy/memory_plan.h"
#include "policy/pass.h"
#include "policy/run_shape.h"

namespace sluice::offload {

/// The inputs of one GPU batch as the engine writes them, in the CPU tier; and its results as it reads them.
struct BatchInputs {
  std::span<std::int32_t> ids, position_rows;  ///< [max_tokens]
  std::span<std::int32_t> wanted_rows;         ///< [max_result_rows], rows of the batch
  std::span<kernels::SampleRow> sample_rows;   ///< [max_result_rows]
};
struct BatchResults {
  std::span<const kernels::SampledRow> rows;
  Matrix<const ScoredToken> top;
};

/// Tests fill memory that is about to be rewritten with NaN, so that a reader which comes too early or too
/// late cannot go unnoticed.
enum class Poison : std::uint8_t { kOff, kOn };

class ModelRunner : public StepRunner {
 public:
  /// All outlive the runner. `valid_vocab` is the number of ids that may be chosen.
  ModelRunner(const policy::RunShape& shape, const TierMemory& memory, WeightStore& weights, KvCache& kv,
              kernels::Device& device, kernels::ThreadPool& pool, std::int64_t valid_vocab, Poison poison);

  /// Opens the activation file on both disk lanes; nothing to do if no activations rest on disk.
  void open_file(BlockIo& disk_read, BlockIo& disk_write);

  /// Runs the operators of a layer and of the head once over whatever the memory holds, on an asynchronous
  /// device: its libraries load kernels and choose algorithms at the first call of a shape. Before the first
  /// pass.
  void warm_up();

  /// The pass that steps with this number refer to; it stays until the pass after next replaces it.
  void set_pass(const policy::Pass& pass) { passes_[static_cast<std::size_t>(pass.number % 2)] = &pass; }
  BatchInputs inputs(std::int32_t pass, std::int64_t gpu_batch) const;
  BatchResults results(std::int64_t gpu_batch) const;

  kernels::Stream* stream(policy::LaneKind lane) override { return streams_[lane_index(lane)].get(); }
  std::int64_t run(const policy::Step& step) override;
  void io_requests(const policy::Step& step, std::vector<IoRequest>& out) override;

  /// What policy must know of the device and its kernels, for a model with these weights.
  static policy::DeviceTraits traits(const WeightSource& weights, kernels::DeviceKind device,
                                     HostWeights host_weights = HostWeights::kPinned);

 private:
  struct Set {
    MatrixView q, k, v, attn;
  };
  /// Page tables of one attending lane; reserved for a full GPU batch.
  struct PageTables {
    std::vector<const std::byte*> pages;
    std::vector<kernels::PagedSegment> segments;
  };

  const policy::Pass& pass_of(const policy::Step& step) const {
    return *passes_[static_cast<std::size_t>(step.pass % 2)];
  }
  const policy::BatchPass& batch_of(const policy::Step& step) const {
    return pass_of(step).batches[static_cast<std::size_t>(step.gpu_batch)];
  }
  MatrixView activations(const policy::Step& step, std::int64_t rows) const;
  std::byte* activation_buffer(const policy::Step& step) const;
  Set gpu_set(std::int64_t index, std::int64_t rows) const;
  Set cpu_set(std::int64_t index, std::int64_t rows) const;
  Set set_at(std::byte* base, const policy::SetLayout& layout, std::int64_t rows) const;
  BatchInputs inputs_in(Tier tier, std::int32_t pass, std::int64_t gpu_batch) const;
  std::byte* results_in(Tier tier, std::int64_t gpu_batch) const;
  std::byte* scratch(std::int64_t offset) const;
  std::span<std::byte> expanded() const;
  MatrixView scratch_matrix(std::int64_t offset, std::int64_t rows, std::int64_t cols, DType dtype) const;
  void poison(std::span<std::byte> memory, kernels::Stream& stream) const;
  kernels::Stream& stream_of(const policy::Step& step) { return *streams_[lane_index(step.lane)]; }

  bool load_layer_to_warm_up();
  void warm_up_layer(std::int64_t rows);
  void warm_up_head(std::int64_t rows);
  void fill_tables(const policy::Step& step, bool on_cpu, std::int64_t slot, PageTables& tables) const;
  std::int64_t load_inputs(const policy::Step& step);
  void embed(const policy::Step& step);
  void pre(const policy::Step& step);
  void attend_gpu(const policy::Step& step);
  void attend_cpu(const policy::Step& step);
  std::int64_t send_qkv(const policy::Step& step);
  std::int64_t send_attention(const policy::Step& step);
  void post(const policy::Step& step);
  void head(const policy::Step& step);
  std::int64_t fetch_results(const policy::Step& step);

  const policy::RunShape& shape_;
  const TierMemory& memory_;
  WeightStore& weights_;
  KvCache& kv_;
  const std::int64_t valid_vocab_;
  const Poison poison_;
  const policy::ScratchLayout scratch_layout_;
  const policy::SetLayout gpu_set_layout_, cpu_set_layout_;
  const policy::InputLayout input_layout_;
  const policy::ResultLayout result_layout_;
  FileId read_file_ = -1, write_file_ = -1;
  std::array<const policy::Pass*, 2> passes_{};

  std::array<std::unique_ptr<kernels::Stream>, policy::kNumLanes> streams_;  // none for the disk lanes
  PageTables gpu_tables_, cpu_tables_;                                       // each belongs to its lane
};

}  // namespace sluice::offload
