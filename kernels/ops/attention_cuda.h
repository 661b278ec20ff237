// The parts of the CUDA device's attention, by the kind of segment. CUDA builds only; no CUDA types here.
#pragma once

#include <cstdint>

#include "kernels/ops/attention.h"

namespace sluice::kernels::detail {

/// Each takes from args.segments what is its own.
void attention_decode_cuda(const AttentionArgs& args, Stream& stream);   // kDecode, fp16 KV
void attention_prefill_cuda(const AttentionArgs& args, Stream& stream);  // kPrompt, fp16 KV
void attention_fp32_kv_cuda(const AttentionArgs& args, Stream& stream);  // both, fp32 KV

/// Throws Error{kUnsupported}: the tables of one launch, or the workspace, hold no sequence of `tokens`.
[[noreturn]] void refuse_sequence(std::int64_t tokens);

}  // namespace sluice::kernels::detail
