// Any bytes are a stored matrix that can be expanded, or an Error, in every weight format. An input is a byte
// for the encoding, one for the type, rows - 1, cols - 1, and then the stored bytes.
#include <optional>
#include <vector>

#include "core/error.h"
#include "kernels/format/format.h"
#include "tests/fuzz/outcome.h"

namespace sluice {
namespace {

using fuzz::require;

constexpr std::size_t kHeader = 4;

const kernels::FormatCodec* find_codec(Encoding encoding) {
  try {
    return &kernels::codec_of(encoding);
  } catch (const Error& error) {
    require(error.code() == Code::kUnsupported);
    return nullptr;
  }
}

std::vector<std::uint16_t> expand(const kernels::FormatCodec& codec, const kernels::WeightView& weight) {
  std::vector<std::uint16_t> values(static_cast<std::size_t>(weight.rows * weight.cols));
  codec.expand(weight, 0, weight.rows, values);
  return values;
}

/// The size is what a manifest admits.
bool has_good_size(WeightFormat format, std::int64_t bytes, std::int64_t rows, std::int64_t cols) {
  const ByteRange range = weight_byte_range(format, rows, cols);
  return bytes >= range.min && bytes <= range.max && (has_fixed_size(format.encoding) || bytes % 16 == 0);
}

void check(std::span<const std::uint8_t> input) {
  if (input.size() < kHeader) return;
  const Encoding encoding = all_encodings()[input[0] % all_encodings().size()];
  const WeightFormat format{encoding, input[1] % 2 == 0 ? DType::kF16 : DType::kBF16};
  const std::int64_t rows = input[2] + 1;
  const std::int64_t cols = input[3] + 1;
  // A copy of its own, so that a sanitizer sees a read beyond it.
  const auto rest = std::as_bytes(input.subspan(kHeader));
  const std::vector<std::byte> stored(rest.begin(), rest.end());
  const kernels::FormatCodec* codec = find_codec(encoding);
  if (codec == nullptr) return fuzz::note_outcome("no codec");
  if (!has_good_size(format, static_cast<std::int64_t>(stored.size()), rows, cols)) {
    return fuzz::note_outcome("size");
  }
  const kernels::WeightView weight{format, stored, rows, cols};
  try {
    codec->check(weight, "w");
  } catch (const Error& error) {
    require(error.code() == Code::kCorrupt);
    return fuzz::note_unquoted(fmt::format("{}: {}", encoding_name(encoding), error.what()));
  }
  const std::vector<std::uint16_t> values = expand(*codec, weight);
  if (is_lossless(encoding)) {
    const TensorSpec tensor{"w", 0, rows, cols, false, SplitRule::kReplicated};
    const std::vector<std::byte> again = kernels::encode_matrix(tensor, format, values);
    require(has_good_size(format, static_cast<std::int64_t>(again.size()), rows, cols));
    require(expand(*codec, {format, again, rows, cols}) == values);
  }
  fuzz::note_outcome(fmt::format("{} expanded", encoding_name(encoding)));
}

}  // namespace
}  // namespace sluice

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sluice::check({data, size});
  return 0;
}
