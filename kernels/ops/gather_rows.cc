#include "kernels/ops/gather_rows.h"

#include <cstring>

#include "core/build_config.h"
#include "core/error.h"
#include "kernels/ops/cuda_kernels.h"
#include "kernels/ops/operands.h"

namespace sluice::kernels {

std::string why_unsupported(const GatherRowsArgs& args, DeviceKind kind) {
  return first_reason(why_no_device(kind), args.x.dtype == args.y.dtype
                                               ? std::string()
                                               : fmt::format("x is {} and y {}", dtype_name(args.x.dtype),
                                                             dtype_name(args.y.dtype)));
}

void gather_rows(const GatherRowsArgs& args, Stream& stream) {
  refuse_unless_empty("gather_rows", why_unsupported(args, stream.kind()));
  SLUICE_ASSERT(args.y.rows == static_cast<std::int64_t>(args.rows.size()));
  SLUICE_ASSERT(args.y.cols == args.x.cols);
  check_operand(stream, args.x);
  check_operand(stream, args.y);
  if (args.y.rows == 0 || args.y.cols == 0) return;
  if constexpr (kWithCuda) {
    if (stream.kind() == DeviceKind::kCuda) return detail::gather_rows_cuda(args, stream);
  }
  for (std::int64_t i = 0; i < args.y.rows; ++i) {
    const std::int32_t row = args.rows[static_cast<std::size_t>(i)];
    SLUICE_CHECK(row >= 0 && row < args.x.rows, Code::kInternal,
                 fmt::format("row {} of {} is wanted", row, args.x.rows),
                 "please report this with the request");
    std::memcpy(args.y.slice_rows(i, 1).data, args.x.slice_rows(row, 1).data,
                static_cast<std::size_t>(args.x.cols * dtype_bytes(args.x.dtype)));
  }
}

}  // namespace sluice::kernels
