// The CPU device's operators behind their checks: what <op>.cc dispatches to and <op>_cpu.cc defines.
// Arguments are supported and consistent. Each picks the machine's SIMD target at run time and allocates
// nothing; tiles and partial sums live on the stack (at most 512 KiB a thread).
#pragma once

#include "kernels/device/cpu/thread_pool.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/layer_norm.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/sample.h"

namespace sluice::kernels::detail {

void embedding_cpu(const EmbeddingArgs& args, ThreadPool& pool);
void layer_norm_cpu(const LayerNormArgs& args, ThreadPool& pool);
void linear_cpu(const LinearArgs& args, ThreadPool& pool);
void attention_cpu(const AttentionArgs& args, ThreadPool& pool);
void kv_write_cpu(const KvWriteArgs& args, ThreadPool& pool);

/// Of one row of logits: the largest (NaN if any is NaN) and log(sum(exp)).
struct LogitSummary {
  float max = 0;
  double log_sum_exp = 0;
};
LogitSummary summarize_logits_cpu(std::span<const float> logits);

}  // namespace sluice::kernels::detail
