#include "kernels/ops/expand.h"

#include <algorithm>

#include "core/build_config.h"
#include "core/error.h"
#include "kernels/device/cpu/thread_pool.h"
#include "kernels/format/format.h"
#include "kernels/ops/cuda_kernels.h"
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

/// Rows of tensor cores' tiles: slices of others would waste some.
constexpr std::int64_t kSliceUnit = 128;

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
  if constexpr (kWithCuda) {
    if (stream.kind() == DeviceKind::kCuda) {
      SLUICE_ASSERT(reinterpret_cast<std::uintptr_t>(args.weight.data.data()) % 16 == 0 &&
                    reinterpret_cast<std::uintptr_t>(args.out.data()) % 16 == 0);
      return detail::expand_cuda(args, stream);
    }
  }
  expand_cpu(args, stream.pool());
}

std::int64_t expanded_slice_rows(WeightFormat format, std::int64_t rows, std::int64_t cols,
                                 std::int64_t bytes) {
  // Both are powers of two, so slices begin at multiples of either.
  const std::int64_t unit = std::max(kSliceUnit, codec_of(format.encoding).row_granule(cols));
  const std::int64_t most = std::max<std::int64_t>(1, bytes / (unit * cols * 2)) * unit;
  return std::min(rows, align_up(div_up(rows, div_up(rows, most)), unit));
}

std::int64_t expansion_bytes(WeightFormat format, std::int64_t rows, std::int64_t cols, DeviceKind kind) {
  if (format.encoding == Encoding::kDense) return 0;
  const std::int64_t slice = expanded_slice_rows(format, rows, cols, expanded_slice_bytes(kind)) * cols * 2;
  return kind == DeviceKind::kCuda ? 2 * align_up(slice, 256) : slice;
}

}  // namespace sluice::kernels
