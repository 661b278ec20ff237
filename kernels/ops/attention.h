// Attention over paged KV for ragged segments, and the write of new K and V into pages: the contracts.
// Prefill, decode, chunks and mixtures are the same call. No device types.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/kv_page.h"
#include "core/matrix.h"
#include "kernels/device/stream.h"

namespace sluice::kernels {

/// What a segment's rows are. On CUDA this, and never the number of rows, chooses the kernel: the bits of a
/// prompt row do not depend on where the prompt was cut. On the CPU it changes nothing.
enum class SegmentKind : std::uint8_t {
  kPrompt,  ///< any number of rows of a prompt, one too
  kDecode   ///< the one row of a sequence whose prompt is done
};

/// The rows of one sequence in one call.
struct PagedSegment {
  /// pages[p] holds KV indices [64 p, 64 p + 64); see core/kv_page.h
  const std::byte* const* pages = nullptr;
  std::int64_t first_kv = 0;   ///< KV index of the segment's first row
  std::int32_t first_row = 0;  ///< row in q, k, v and out
  std::int32_t num_rows = 0;
  std::int32_t full_prefix = 0;  ///< every row sees the columns below this; 0 is causal
  SegmentKind kind = SegmentKind::kPrompt;
};

/// out[r, h] = softmax(scale * q[r, h] . K[0..r'])  V[0..r'],  r' = the row's own KV index (causal), columns
/// below full_prefix always visible. Query head h reads KV head h / (num_heads / num_kv_heads).
///
/// Shapes    q, out [num_tokens, num_heads * head_dim] any stride; a segment of kind kDecode has one row.
///
/// Types     q, out the device's activation type, on the CPU also fp16 and bf16 (it attends for CUDA runs); K
///           and V in layout.format, read after rounding.
///
/// Exactness Each page gets its own (max, sum, out) from a fresh start and the pages are merged one by one in
///           page order (log-sum-exp), so on CPU the result does not depend on how rows are grouped.
///           On CUDA K and V are read and P V multiplied in fp16 by the tensor cores (fp32 pages: all in
///           fp32) and accumulated in fp32. A sequence is cut into the same pieces whatever else is in the
///           batch, so a row's result depends on its segment's kind, and on nothing else of the batch. A V
///           that is infinite may reach earlier rows of its segment as NaN.
///
/// Pages     aligned to 16 bytes on CUDA. The K and V of the segment's own rows must be in the pages already
///           (kv_write). No operator but kv_write writes pages: on CUDA attention of decode rows reads what
///           is in front of them while the kernel ahead still runs.
struct AttentionArgs {
  ConstMatrixView q = {};
  std::span<const PagedSegment> segments = {};
  KvLayout layout = {};
  std::int64_t num_heads = 0;
  float scale = 1.0F;
  MatrixView out = {};
};

std::string why_unsupported(const AttentionArgs& args, DeviceKind kind);
void attention(const AttentionArgs& args, Stream& stream);

/// Writes row r of k and v to KV index first_kv + r of each segment's pages, rounded to layout.format. Pages
/// are written, despite their const type.
///
/// Shapes    k, v [num_tokens, num_kv_heads * head_dim] any stride.
struct KvWriteArgs {
  ConstMatrixView k = {};
  ConstMatrixView v = {};
  std::span<const PagedSegment> segments = {};
  KvLayout layout = {};
};

std::string why_unsupported(const KvWriteArgs& args, DeviceKind kind);
void kv_write(const KvWriteArgs& args, Stream& stream);

}  // namespace sluice::kernels
