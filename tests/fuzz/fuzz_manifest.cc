// Any text is a manifest or an Error; an accepted one keeps the promises that readers of stores rely on, and
// survives being written and read again.
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/store/manifest.h"
#include "core/units.h"
#include "tests/fuzz/fuzz.h"

namespace sluice {
namespace {

/// A broken promise is a crash, which is what a fuzzer reports.
void require(bool holds) {
  if (!holds) __builtin_trap();
}

void check_promises(const Manifest& manifest) {
  require(static_cast<std::int64_t>(manifest.files.size()) == num_units(manifest.spec));
  require(manifest.tensors.size() == model_tensors(manifest.spec).size());
  const StoredTensor* before = nullptr;
  for (const StoredTensor& tensor : manifest.tensors) {
    require(tensor.file >= 0 && static_cast<std::size_t>(tensor.file) < manifest.files.size());
    require(tensor.offset >= 0 && tensor.offset % kPageAlign == 0);
    const ByteRange range = weight_byte_range(tensor.format, tensor.spec.rows, tensor.spec.cols);
    require(tensor.bytes >= range.min && tensor.bytes <= range.max);
    require(has_fixed_size(tensor.format.encoding) || tensor.bytes % 16 == 0);
    require(before == nullptr || before->file != tensor.file ||
            tensor.offset >= before->offset + before->bytes);
    before = &tensor;
  }
  for (const std::string& name : manifest.files) require(name.find('/') == std::string::npos && name != "..");
}

/// What failed, without the input's own words, which would make every outcome a new one.
std::string kind_of(std::string_view message) {
  std::string kind;
  bool is_quoted = false;
  for (const char c : message.substr(0, message.find("is not JSON"))) {
    if (c == '\'') is_quoted = !is_quoted;
    if (!is_quoted) kind += c;
  }
  return message.find("is not a known field") != message.npos ? "unknown field" : kind;
}

void check(std::string_view text) {
  try {
    const Manifest manifest = parse_manifest(text, "manifest.json");
    check_promises(manifest);
    require(parse_manifest(manifest_to_json(manifest), "again") == manifest);
    fuzz::note_outcome("accepted");
  } catch (const Error& error) {
    require(error.code() == Code::kCorrupt || error.code() == Code::kUnsupported);
    fuzz::note_outcome(kind_of(error.what()));
  }
}

}  // namespace
}  // namespace sluice

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sluice::check({reinterpret_cast<const char*>(data), size});
  return 0;
}
