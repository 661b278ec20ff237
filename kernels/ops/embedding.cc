#include "kernels/ops/embedding.h"

#include "core/build_config.h"
#include "core/error.h"
#include "kernels/ops/cpu_kernels.h"
#include "kernels/ops/cuda_kernels.h"
#include "kernels/ops/operands.h"

namespace sluice::kernels {

std::string why_unsupported(const EmbeddingArgs& args, DeviceKind kind) {
  return first_reason(why_not_activation("y", args.y.dtype, kind), why_not_weight("table", args.table));
}

void embedding(const EmbeddingArgs& args, Stream& stream) {
  refuse_unless_empty("embedding", why_unsupported(args, stream.kind()));
  SLUICE_ASSERT(args.y.rows == static_cast<std::int64_t>(args.ids.size()));
  SLUICE_ASSERT(args.y.cols == args.table.cols);
  check_operand(stream, args.table);
  check_operand(stream, args.y);
  if constexpr (kWithCuda) {
    if (stream.kind() == DeviceKind::kCuda) return detail::embedding_cuda(args, stream);
  }
  for (std::size_t t = 0; t < args.ids.size(); ++t) {
    SLUICE_CHECK(args.ids[t] >= 0 && args.ids[t] < args.table.rows, Code::kInternal,
                 fmt::format("row {} looks up id {} in a table of {} rows", t, args.ids[t], args.table.rows),
                 "ids are validated when a request is submitted: please report this with the request");
  }
  detail::embedding_cpu(args, stream.pool());
}

}  // namespace sluice::kernels
