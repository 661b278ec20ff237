#include "tests/policy/planner_problems.h"

#include <cmath>
#include <random>

namespace sluice::policy::testing {
namespace {

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : random_(seed) {}
  std::int64_t pick(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }
  bool one_in(std::int64_t n) { return pick(1, n) == 1; }
  /// Evenly on a logarithmic scale.
  double rate(double low, double high) {
    return low * std::pow(high / low, std::uniform_real_distribution<double>(0, 1)(random_));
  }

 private:
  std::mt19937_64 random_;
};

ModelSpec random_spec(Dice& dice) {
  const std::int64_t heads = dice.pick(1, 4);
  ModelSpec spec = opt_spec(dice.pick(1, 5), heads * 64, heads, dice.pick(200, 4000));
  if (dice.one_in(4)) spec.ffn_dim = spec.hidden_dim * dice.pick(1, 6);
  if (dice.one_in(5)) spec.embed_dim = 64;  // with project_in and project_out, where it is not hidden_dim
  spec.tied_embedding = !dice.one_in(5);
  return spec;
}

/// The matrices of the decoder layers in one format, with a third to all of the bytes that it may take.
void store_in_a_format(PlanProblem& problem, Dice& dice) {
  const std::span<const Encoding> all = all_encodings();
  const Encoding encoding = all[static_cast<std::size_t>(dice.pick(0, std::ssize(all) - 1))];
  const double filled = dice.rate(0.3, 1);
  problem.sizes.clear();
  for (const TensorSpec& tensor : model_tensors(problem.spec)) {
    const bool of_layer = tensor.unit > 0 && tensor.unit < output_unit(problem.spec) && !tensor.is_vector;
    const WeightFormat format{of_layer ? encoding : Encoding::kDense, DType::kF16};
    std::int64_t bytes = 0;
    if (has_fixed_size(format.encoding)) {
      bytes = weight_bytes(format, tensor.rows, tensor.cols);
    } else {
      const ByteRange range = weight_byte_range(format, tensor.rows, tensor.cols);
      bytes = range.min + static_cast<std::int64_t>(filled * static_cast<double>(range.max - range.min));
    }
    problem.sizes.push_back({tensor.unit, bytes, tensor.is_vector});
    problem.formats.push_back(format.encoding);
  }
  if (dice.one_in(2)) problem.traits.expanded_bytes = dice.pick(0, 64) * 4096;
}

HardwareProfile random_machine(Dice& dice) {
  HardwareProfile h;
  h.link.h2d = {{64, dice.rate(0.5, 20)}, {1024, dice.rate(1, 50)}};
  h.link.d2h = {{64, dice.rate(0.5, 20)}, {1024, dice.rate(1, 50)}};
  h.gpu.products = {{.rows = 1, .tflop_per_sec = dice.rate(0.02, 2)},
                    {.rows = 128, .tflop_per_sec = dice.rate(0.5, 100)}};
  for (const Encoding encoding : all_encodings()) {  // some measured, the others are expanded
    if (encoding == Encoding::kDense || !dice.one_in(2)) continue;
    h.gpu.products.push_back({encoding, ProductKernel::kFused, 1, dice.rate(0.02, 4)});
    h.gpu.products.push_back({encoding, ProductKernel::kFused, 128, dice.rate(0.5, 100)});
  }
  h.gpu.copy_gb_per_sec = dice.rate(20, 2000);
  h.gpu.attention_gb_per_sec = dice.rate(10, 1000);
  h.gpu.attention_tflop_per_sec = dice.rate(0.5, 100);
  const double attention = dice.rate(1, 100);
  h.cpu.attention = {{KvFormat::kF16, 2, 0.6 * attention, 0}, {KvFormat::kF16, 4, attention, 0}};
  h.disk.read = {{1, 1024, dice.rate(0.1, 5)}};
  h.disk.write = {{1, 1024, dice.rate(0.1, 5)}};
  h.beside = {{LaneKind::kH2d, LaneKind::kD2h, dice.rate(0.5, 1)},
              {LaneKind::kD2h, LaneKind::kH2d, dice.rate(0.5, 1)}};
  h.beside_attention = {{2, dice.rate(0.7, 1), dice.rate(0.7, 1), dice.rate(0.7, 1)},
                        {4, dice.rate(0.5, 1), dice.rate(0.5, 1), dice.rate(0.5, 1)}};
  h.overheads = {dice.rate(1, 30), dice.rate(1, 10), dice.rate(1, 30), dice.rate(5, 100), dice.rate(10, 300)};
  // As measured on a GPU: no dice, so that all else is what the seeds have always given.
  h.overheads.gpu_beside_h2d_usec = 2.5 * h.overheads.gpu_usec;
  h.overheads.gpu_beside_d2h_usec = 1.2 * h.overheads.gpu_usec;
  return h;
}

void state_choices(PlanChoices& choices, Dice& dice) {
  if (dice.one_in(4)) choices.kv_format = KvFormat::kF32;
  if (dice.one_in(4)) choices.mixing = false;
  if (!dice.one_in(4)) return;
  switch (dice.pick(0, 5)) {
    case 0:
      choices.cpu_attention = dice.one_in(2);
      break;
    case 1:
      choices.gpu_batch_size = dice.pick(1, 6);
      break;
    case 2:
      choices.num_gpu_batches = dice.pick(1, 4);
      break;
    case 3:
      choices.kv_cache = dice.one_in(2) ? PerTier<int>{{0, 100, 0}} : PerTier<int>{{50, 50, 0}};
      break;
    case 4:
      choices.activations = PerTier<int>{{0, 100, 0}};
      break;
    default:
      choices.weights = dice.one_in(2) ? PerTier<int>{{0, 100, 0}} : PerTier<int>{{50, 50, 0}};
  }
}

}  // namespace

PlanProblem random_problem(std::uint64_t seed) {
  Dice dice(seed);
  PlanProblem problem;
  problem.spec = random_spec(dice);
  problem.sizes = tensor_sizes(problem.spec);
  problem.traits = test_traits();
  if (dice.one_in(2)) problem.traits.activation_dtype = DType::kF16;
  problem.traits.weight_piece_bytes = dice.one_in(2) ? 256_KiB : 64_KiB;
  problem.traits.num_weight_slabs = dice.one_in(4) ? 3 : 0;
  if (dice.one_in(2)) store_in_a_format(problem, dice);
  const bool ragged = dice.one_in(2);
  const RequestLength all{dice.pick(1, 200), dice.pick(1, 8)};
  for (std::int64_t i = dice.pick(1, 12); i > 0; --i)
    problem.requests.push_back(ragged ? RequestLength{dice.pick(1, 200), dice.pick(1, 8)} : all);
  for (const RequestLength& request : problem.requests)
    problem.workload.add_request(request.prompt_len, request.gen_len);
  problem.hardware = random_machine(dice);
  // From too little for anything to enough for everything.
  Placement everything;
  everything.gpu_batch_size = std::ssize(problem.requests);
  const RunShape resident =
      make_run_shape(problem.spec, problem.sizes, everything, problem.workload, problem.traits);
  const auto most = static_cast<double>(make_memory_plan(resident, true).total[Tier::kGpu]);
  const auto budget = [&](double low, double high) {
    return static_cast<std::int64_t>(most * dice.rate(low, high));
  };
  problem.budget_bytes = {{budget(0.25, 1.5), budget(0.25, 2), dice.one_in(2) ? budget(0.1, 2) : 0}};
  if (dice.one_in(4)) {
    problem.hardware.memory.gpu_is_host = true;
    const std::int64_t both = problem.budget_bytes[Tier::kGpu] + problem.budget_bytes[Tier::kCpu];
    problem.host_bytes = static_cast<std::int64_t>(dice.rate(0.5, 1) * static_cast<double>(both));
  }
  problem.weights_on_disk = dice.one_in(2);
  state_choices(problem.choices, dice);
  if (dice.one_in(5)) {
    // In units of what one sequence alone takes, everything on the GPU of a machine without bounds.
    PlanProblem roomy = problem;
    roomy.budget_bytes = {{std::int64_t{1} << 50, std::int64_t{1} << 50, std::int64_t{1} << 50}};
    roomy.host_bytes = -1;
    const auto alone = predict(roomy, Placement{});
    problem.max_latency_sec = dice.rate(1, 30) * alone.value().simulation.longest_request_sec;
  }
  problem.step_budget = 400'000;
  return problem;
}

}  // namespace sluice::policy::testing
