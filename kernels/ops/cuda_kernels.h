// The CUDA device's operators behind their checks: what <op>.cc dispatches to and <op>_cuda.cu defines. CUDA
// builds only. Arguments are supported and consistent; every pointer in them is device memory, except that
// `segments`, and the page tables they name, lie in host memory and are free again when the call returns.
// Each enqueues on the stream, allocates nothing (but for the plan of a product of a new shape) and never
// synchronises. No CUDA types here.
#pragma once

#include "kernels/ops/attention.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/expand.h"
#include "kernels/ops/gather_rows.h"
#include "kernels/ops/layer_norm.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/sample.h"

namespace sluice::kernels::detail {

void embedding_cuda(const EmbeddingArgs& args, Stream& stream);
void expand_cuda(const ExpandArgs& args, Stream& stream);
void gather_rows_cuda(const GatherRowsArgs& args, Stream& stream);
void layer_norm_cuda(const LayerNormArgs& args, Stream& stream);
void linear_cuda(const LinearArgs& args, Stream& stream);
/// The weight is encoded: the path that was measured to be the fastest, or expansion ahead of the product.
void linear_encoded_cuda(const LinearArgs& args, Stream& stream);
void linear_expanded_cuda(const LinearArgs& args, Stream& stream);
/// False, and nothing is done, if the layers cannot be one product.
bool linear_group_cuda(std::span<const LinearArgs> layers, Stream& stream);
void attention_cuda(const AttentionArgs& args, Stream& stream);
void kv_write_cuda(const KvWriteArgs& args, Stream& stream);
void sample_cuda(const SampleArgs& args, Stream& stream);

}  // namespace sluice::kernels::detail
