// What the planner's tests plan: work on machines of a real size, and random models, machines and workloads.
#pragma once

#include <cstdint>
#include <string>

#include <fmt/format.h>

#include "core/units.h"
#include "policy/planner.h"
#include "tests/policy/shapes.h"

namespace sluice::policy::testing {

/// Figures of a data-centre GPU with a fast link, as README has them.
inline HardwareProfile fast_machine() {
  HardwareProfile h;
  h.link.h2d = {{64, 17}, {1024, 48}, {32768, 53}};
  h.link.d2h = {{64, 17}, {1024, 48}, {32768, 53}};
  h.gpu.products = {{.rows = 1, .tflop_per_sec = 3},
                    {.rows = 64, .tflop_per_sec = 180},
                    {.rows = 512, .tflop_per_sec = 550},
                    {.rows = 4096, .tflop_per_sec = 650}};
  h.gpu.copy_gb_per_sec = 4000;
  h.gpu.attention_gb_per_sec = 2500;
  h.gpu.attention_tflop_per_sec = 300;
  h.cpu.attention = {{KvFormat::kF16, 15, 115, 0}};
  h.disk.read = {{16, 1024, 1.65, 0}};
  h.disk.write = {{16, 1024, 1.87, 0}};
  h.beside_attention = {{15, 0.87, 0.9, 0.95}};
  return h;
}

inline DeviceTraits gpu_traits() {
  DeviceTraits traits = test_traits();
  traits.activation_dtype = DType::kF16;
  traits.mlp_rows = 2048;
  traits.weight_piece_bytes = 32_MiB;
  traits.workspace_bytes = 64_MiB;
  return traits;
}

inline PlanProblem problem_of(const ModelSpec& spec, std::int64_t prompt_len, std::int64_t gen_len,
                              std::int64_t count, const PerTier<std::int64_t>& budget) {
  PlanProblem problem;
  problem.spec = spec;
  problem.sizes = tensor_sizes(spec);
  problem.requests.assign(static_cast<std::size_t>(count), {prompt_len, gen_len});
  for (const RequestLength& request : problem.requests)
    problem.workload.add_request(request.prompt_len, request.gen_len);
  problem.traits = gpu_traits();
  problem.hardware = fast_machine();
  problem.budget_bytes = budget;
  return problem;
}

inline std::string text(const PlanCandidate& plan) {
  return fmt::format(
      "{} {}x{} attention {} depth {} tokens {}: {:.1f} tokens/s", to_string(plan.placement.percents),
      plan.placement.gpu_batch_size, plan.placement.num_gpu_batches, plan.placement.cpu_attention,
      plan.placement.prefetch_depth, plan.placement.max_tokens_per_gpu_batch, plan.tokens_per_sec());
}

/// One of endless many, the same for a seed everywhere: OPT-like shapes with and without a projected
/// embedding, every weight format, equal and ragged requests or as many as fill the block, with and without
/// disk, host memory that both tiers share, a latency bound, and choices that are stated.
PlanProblem random_problem(std::uint64_t seed);

}  // namespace sluice::policy::testing
