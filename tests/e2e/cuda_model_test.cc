// Models of other shapes and types than the golden ones on a CUDA device: against the CPU device, whose
// activations are fp32; large tensors and pageable weights; batch invariance and poison for them too.
#include <filesystem>
#include <map>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/units.h"
#include "tests/e2e/cuda_runs.h"
#include "tests/e2e/lane_bytes.h"
#include "tests/kernels/checkpoint_fixture.h"

namespace sluice {
namespace {

using offload::HostWeights;
using offload::Request;
using policy::Placement;
using testing::first_real_difference;
using testing::run_on_cuda;
using testing::RunDevice;
using testing::RunOutcome;

struct Shape {
  std::int64_t head_dim, num_heads, num_kv_heads;
  DType dtype = DType::kF16;
};

void PrintTo(const Shape& shape, std::ostream* out) {
  *out << fmt::format("{} x {} ({} KV heads) {}", shape.num_heads, shape.head_dim, shape.num_kv_heads,
                      dtype_name(shape.dtype));
}

ModelSpec spec_of(const Shape& shape) {
  ModelSpec spec = testing::small_spec();
  spec.head_dim = shape.head_dim;
  spec.num_heads = shape.num_heads;
  spec.num_kv_heads = shape.num_kv_heads;
  spec.hidden_dim = spec.embed_dim = std::max<std::int64_t>(64, shape.head_dim);
  spec.weight_dtype = shape.dtype;
  return spec;
}

// The tuned head dims, every other kind of multiple of 8, and KV heads that several query heads share.
constexpr std::array kShapes = {
    Shape{64, 2, 2},
    Shape{80, 2, 2},
    Shape{96, 2, 2},
    Shape{128, 2, 2},
    Shape{8, 4, 4},
    Shape{16, 3, 3},
    Shape{40, 2, 2},
    Shape{56, 3, 3},
    Shape{72, 2, 2},
    Shape{104, 1, 1},
    Shape{112, 2, 2},
    Shape{120, 2, 2},
    Shape{136, 2, 2},
    Shape{160, 1, 1},
    Shape{200, 2, 2},
    Shape{248, 1, 1},
    Shape{256, 2, 2},
    Shape{64, 6, 2},
    Shape{128, 8, 1},
    Shape{40, 6, 3},
    Shape{80, 12, 2},
    Shape{24, 3, 3, DType::kBF16},
    Shape{64, 2, 2, DType::kBF16},
    Shape{80, 2, 2, DType::kBF16},
    Shape{128, 4, 2, DType::kBF16},
    Shape{104, 1, 1, DType::kBF16},
    Shape{256, 2, 1, DType::kBF16},
};

struct Setting {
  const char* name;
  std::vector<int> percents;
  std::int64_t num_gpu_batches;
  bool cpu_attention;
};
const std::vector<Setting>& settings() {
  static const std::vector<Setting> all = {
      {"Resident", {100, 0, 100, 0, 100, 0}, 1, false},
      {"CpuAttention", {0, 60, 0, 100, 0, 100}, 2, true},
      {"Streamed", {30, 30, 30, 30, 34, 33}, 3, false},
  };
  return all;
}

class CudaModel : public testing::CudaRuns,
                  public ::testing::WithParamInterface<std::tuple<Shape, std::size_t>> {};

TEST_P(CudaModel, AgreesWithTheCpuDevice) {
  const auto& [shape, index] = GetParam();
  const Setting& setting = settings()[index];
  const ModelSpec spec = spec_of(shape);
  const std::vector<Request> requests = testing::greedy_requests(spec.vocab_size);
  const RunOutcome on_cpu = testing::run_requests(
      testing::synthetic(spec), testing::placed({100, 0, 100, 0, 100, 0}, 4, 1, false), requests);
  Placement placement = testing::placed(setting.percents, 2, setting.num_gpu_batches, setting.cpu_attention);
  placement.max_tokens_per_gpu_batch = 150;
  const RunOutcome outcome = run_on_cuda(testing::synthetic(spec), placement, requests);
  EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
  EXPECT_EQ(first_real_difference(on_cpu.results, outcome.results, testing::cuda_limits(shape.dtype)), "");
  EXPECT_EQ(testing::counted_lane_bytes(outcome), testing::expected_lane_bytes(outcome));
}

INSTANTIATE_TEST_SUITE_P(Shapes, CudaModel,
                         ::testing::Combine(::testing::ValuesIn(kShapes),
                                            ::testing::Range(std::size_t{0}, settings().size())));

// fp32 KV is for validation: what is left are the activations' own roundings.
class CudaValues : public testing::CudaRuns {};

TEST_F(CudaValues, AgreeWithTheCpuDeviceWithFp32Kv) {
  const ModelSpec spec = spec_of({80, 2, 2});
  const std::vector<Request> requests = testing::greedy_requests(spec.vocab_size);
  std::vector<RunOutcome> outcomes;
  for (const Setting& setting : settings()) {
    Placement placement =
        testing::placed(setting.percents, 2, setting.num_gpu_batches, setting.cpu_attention);
    placement.kv_format = KvFormat::kF32;
    if (outcomes.empty())
      outcomes.push_back(testing::run_requests(testing::synthetic(spec), placement, requests));
    outcomes.push_back(run_on_cuda(testing::synthetic(spec), placement, requests));
    EXPECT_EQ(first_real_difference(outcomes.front().results, outcomes.back().results), "") << setting.name;
  }
}

class CudaShape : public testing::CudaRuns, public ::testing::WithParamInterface<Shape> {};

TEST_P(CudaShape, BatchInvariantResultsDoNotDependOnTheBlock) {
  const ModelSpec spec = spec_of(GetParam());
  const std::vector<Request> requests = testing::ragged_requests(spec.vocab_size);
  const auto run = [&](std::int64_t gpu_batch_size, std::int64_t num_gpu_batches,
                       const std::vector<int>& percents) {
    Placement placement = testing::placed(percents, gpu_batch_size, num_gpu_batches, false);
    placement.max_tokens_per_gpu_batch = gpu_batch_size == 3 ? 100 : 8192;
    return run_on_cuda(testing::synthetic(spec), placement, requests, nullptr,
                       {.batch_invariance = kernels::BatchInvariance::kOn});
  };
  const RunOutcome one_by_one = run(1, 1, {100, 0, 100, 0, 100, 0});
  for (const auto& [size, batches] : {std::pair{5, 2}, {3, 3}, {14, 1}}) {
    SCOPED_TRACE(fmt::format("{} x {}", size, batches));
    EXPECT_EQ(
        testing::first_difference(one_by_one.results, run(size, batches, {20, 40, 30, 30, 0, 50}).results),
        "");
  }
}

TEST_P(CudaShape, DelaysAndPoisonChangeNothing) {
  const ModelSpec spec = spec_of(GetParam());
  const std::vector<Request> requests = testing::greedy_requests(spec.vocab_size);
  Placement placement = testing::placed({20, 40, 10, 40, 0, 50}, 2, 2, true);
  placement.max_tokens_per_gpu_batch = 150;
  const RunDevice pageable{.host_weights = HostWeights::kPageable};
  const RunOutcome quiet = run_on_cuda(testing::synthetic(spec), placement, requests);
  offload::RunHooks hooks;
  hooks.poison = offload::Poison::kOn;
  hooks.before_step = testing::random_delays(5);
  for (const bool prefetch : {true, false}) {
    SCOPED_TRACE(fmt::format("prefetch {}", prefetch));
    placement.prefetch = prefetch;
    const RunOutcome outcome = run_on_cuda(testing::synthetic(spec), placement, requests, &hooks, pageable);
    EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
    EXPECT_EQ(testing::first_difference(quiet.results, outcome.results), "");
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CudaShape,
                         ::testing::Values(Shape{80, 2, 2}, Shape{128, 4, 2}, Shape{104, 1, 1},
                                           Shape{64, 2, 2, DType::kBF16}, Shape{96, 6, 3, DType::kBF16},
                                           Shape{120, 2, 2, DType::kBF16}));

// ---- A tensor larger than a piece of 32 MiB and than the buffers that it is loaded through.

/// A store whose vocabulary takes 36.9 MiB, made once.
class LargeTensorStore {
 public:
  LargeTensorStore() {
    checkpoint_.spec = testing::small_spec();
    ModelSpec& spec = checkpoint_.spec;
    spec.num_layers = 2;
    spec.hidden_dim = spec.embed_dim = 384;
    spec.ffn_dim = 768;
    spec.num_heads = spec.num_kv_heads = 6;
    spec.head_dim = 64;
    spec.vocab_size = 50400;
    checkpoint_.value = [](const std::string& name, std::int64_t i) {
      return (name.find("norm.weight") != std::string::npos ? 1.0F : 0.0F) +
             0.03F * testing::value_of(name, i);
    };
    testing::write_checkpoint(folder_ / "checkpoint", checkpoint_);
    source_.store = testing::store_of_checkpoint(folder_ / "checkpoint");
    std::filesystem::remove_all(folder_);
  }
  const offload::ModelSource& source() const { return source_; }
  const ModelSpec& spec() const { return checkpoint_.spec; }

 private:
  const std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / fmt::format("sluice-large-{}", ::getpid());
  testing::TinyCheckpoint checkpoint_;
  offload::ModelSource source_;
};
const LargeTensorStore& large_store() {
  static const LargeTensorStore store;
  return store;
}

std::vector<Request> short_requests(std::int64_t vocab_size) {
  std::vector<Request> requests;
  for (const std::int64_t length : {9, 70, 33}) {
    Request request;
    request.prompt_ids = testing::prompt_of(length, vocab_size, static_cast<std::uint32_t>(length));
    request.max_new_tokens = 6;
    request.want_logprobs = true;
    request.want_prompt_logprobs = true;
    request.num_top_logprobs = 2;
    requests.push_back(std::move(request));
  }
  return requests;
}

struct Way {
  const char* name;
  std::vector<int> percents;
  HostWeights host_weights = HostWeights::kPinned;
  std::int64_t piece_bytes = 0;
};

class CudaLargeTensor : public testing::CudaRuns, public ::testing::WithParamInterface<Way> {};

TEST_P(CudaLargeTensor, ComesWholeWhateverItsWay) {
  const Way& way = GetParam();
  const LargeTensorStore& store = large_store();
  const std::vector<Request> requests = short_requests(store.spec().vocab_size);
  static const RunOutcome on_cpu =
      testing::run_requests(store.source(), testing::placed({100, 0, 100, 0, 100, 0}, 3, 1, false), requests);
  offload::RunHooks hooks;
  hooks.poison = offload::Poison::kOn;
  hooks.before_step = testing::random_delays(9);
  const RunOutcome outcome =
      run_on_cuda(store.source(), testing::placed(way.percents, 2, 2, false), requests, &hooks,
                  {.host_weights = way.host_weights, .weight_piece_bytes = way.piece_bytes});
  EXPECT_TRUE(outcome.violations.empty()) << outcome.violations.front();
  EXPECT_EQ(first_real_difference(on_cpu.results, outcome.results), "");
  EXPECT_EQ(testing::counted_lane_bytes(outcome), testing::expected_lane_bytes(outcome));
}

INSTANTIATE_TEST_SUITE_P(
    Ways, CudaLargeTensor,
    ::testing::Values(Way{"Resident", {100, 0, 100, 0, 100, 0}}, Way{"Streamed", {0, 100, 100, 0, 100, 0}},
                      Way{"StreamedInSmallPieces", {0, 100, 0, 100, 0, 100}, HostWeights::kPinned, 1_MiB},
                      Way{"FromDisk", {0, 0, 100, 0, 100, 0}},
                      Way{"FromDiskInSmallPieces", {0, 0, 0, 100, 100, 0}, HostWeights::kPinned, 1_MiB},
                      Way{"FromEverywhere", {40, 30, 50, 50, 100, 0}},
                      Way{"Pageable", {0, 100, 100, 0, 100, 0}, HostWeights::kPageable},
                      Way{"PageableInSmallPieces", {0, 100, 100, 0, 100, 0}, HostWeights::kPageable, 256_KiB},
                      Way{"PageableAndDisk", {20, 40, 0, 100, 0, 100}, HostWeights::kPageable, 1_MiB}),
    [](const auto& way) { return std::string(way.param.name); });

// The same through the synthesiser's chunks.
TEST_F(CudaValues, ALargeSyntheticTensorComesWhole) {
  const ModelSpec& spec = large_store().spec();
  const std::vector<Request> requests = short_requests(spec.vocab_size);
  const RunOutcome on_cpu = testing::run_requests(
      testing::synthetic(spec), testing::placed({100, 0, 100, 0, 100, 0}, 3, 1, false), requests);
  for (const auto& percents :
       {std::vector<int>{100, 0, 100, 0, 100, 0}, {0, 100, 100, 0, 100, 0}, {0, 0, 100, 0, 100, 0}}) {
    const RunOutcome outcome =
        run_on_cuda(testing::synthetic(spec), testing::placed(percents, 2, 2, false), requests);
    EXPECT_EQ(first_real_difference(on_cpu.results, outcome.results), "");
  }
}

}  // namespace
}  // namespace sluice
