#include "kernels/ops/attention_cuda.h"

#include "core/error.h"
#include "kernels/ops/cuda_kernels.h"

namespace sluice::kernels::detail {

void attention_cuda(const AttentionArgs& args, Stream& stream) {
  SLUICE_ASSERT(args.scale > 0);  // what masks a column is a score of minus infinity
  if (args.layout.format == KvFormat::kF32) {
    attention_fp32_kv_cuda(args, stream);
  } else {
    attention_prefill_cuda(args, stream);
    attention_decode_cuda(args, stream);
  }
}

void refuse_sequence(std::int64_t tokens) {
  throw Error(
      Code::kUnsupported,
      fmt::format("attention: a sequence of {} tokens is too long for the CUDA device's tables", tokens),
      "use shorter prompts, or --device cpu");
}

}  // namespace sluice::kernels::detail
