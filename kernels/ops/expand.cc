#include "kernels/ops/expand.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/device/cpu/thread_pool.h"
#include "kernels/format/format.h"
#include "kernels/ops/operands.h"

namespace sluice::kernels {
namespace {

void expand_cpu(const ExpandArgs& args, ThreadPool& pool) {
  const FormatCodec& codec = codec_of(args.weight.format.encoding);
  const std::int64_t granule = codec.row_granule(args.weight.cols);
  auto* const out = reinterpret_cast<std::uint16_t*>(args.out.data());
  pool.parallel_for(div_up(args.num_rows, granule), 1, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t first = begin * granule;
    const std::int64_t rows = std::min(end * granule, args.num_rows) - first;
    codec.expand(args.weight, args.first_row + first, rows,
                 {out + first * args.weight.cols, static_cast<std::size_t>(rows * args.weight.cols)});
  });
}

}  // namespace

std::string why_unsupported(const ExpandArgs& args, DeviceKind kind) {
  return first_reason(why_no_device(kind), why_not_encoded_weight("weight", args.weight, kind));
}

void expand(const ExpandArgs& args, Stream& stream) {
  refuse_unless_empty("expand", why_unsupported(args, stream.kind()));
  const std::int64_t granule = codec_of(args.weight.format.encoding).row_granule(args.weight.cols);
  const std::int64_t end = args.first_row + args.num_rows;
  SLUICE_ASSERT(args.first_row >= 0 && args.num_rows >= 0 && end <= args.weight.rows);
  SLUICE_ASSERT(args.first_row % granule == 0 && (end % granule == 0 || end == args.weight.rows));
  SLUICE_ASSERT(static_cast<std::int64_t>(args.out.size()) >= args.num_rows * args.weight.cols * 2);
  check_operand(stream, args.weight);
  check_operand(stream, args.out.data(), args.num_rows * args.weight.cols * 2);
  expand_cpu(args, stream.pool());
}

std::int64_t expanded_slice_rows(WeightFormat format, std::int64_t rows, std::int64_t cols) {
  const std::int64_t granule = codec_of(format.encoding).row_granule(cols);
  const std::int64_t granules = std::max<std::int64_t>(1, kExpandedSliceBytes / (granule * cols * 2));
  return std::min(rows, granules * granule);
}

std::int64_t expansion_bytes(WeightFormat format, std::int64_t rows, std::int64_t cols) {
  if (format.encoding == Encoding::kDense) return 0;
  return expanded_slice_rows(format, rows, cols) * cols * 2;
}

}  // namespace sluice::kernels
