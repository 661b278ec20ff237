#include "kernels/format/fingerprint.h"

#include <cerrno>
#include <map>
#include <set>
#include <string>
#include <sys/stat.h>

#include "core/error.h"
#include "core/store/checksum.h"
#include "core/store/posix_file.h"
#include "core/units.h"

namespace sluice::kernels {
namespace {

constexpr std::int64_t kMaxSmallFile = 256_MiB;

std::string printable(const std::string& name) {
  std::string text;
  for (const char c : name) {
    if (c > ' ' && c <= '~' && c != '%') {
      text += c;
    } else {
      text += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return text;
}

std::uint64_t hash_of(const std::string& text) { return store_checksum(std::as_bytes(std::span(text))); }

std::string weights_line(const std::filesystem::path& file, const std::string& header) {
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0) detail::throw_file_error(file, "cannot be looked at", errno);
  return fmt::format("weights {} {} {}.{:09} {:016x}\n", printable(file.filename().string()), info.st_size,
                     info.st_mtim.tv_sec, info.st_mtim.tv_nsec, hash_of(header));
}

std::string small_file_line(const std::filesystem::path& file) {
  const std::string text = detail::read_text_file(file, kMaxSmallFile);
  return fmt::format("file {} {} {:016x}\n", printable(file.filename().string()), text.size(), hash_of(text));
}

}  // namespace

SourceFingerprint fingerprint_of(std::span<const CheckpointTensor> tensors,
                                 std::span<const std::filesystem::path> small_files) {
  std::map<std::filesystem::path, std::string> headers;
  for (const CheckpointTensor& tensor : tensors) {
    headers[tensor.file] += fmt::format("{} {} [{}] {}\n", tensor.name, dtype_name(tensor.dtype),
                                        fmt::join(tensor.shape, ","), tensor.file_offset);
  }
  std::set<std::string> lines;
  for (const auto& [file, header] : headers) lines.insert(weights_line(file, header));
  for (const std::filesystem::path& file : small_files) lines.insert(small_file_line(file));
  SourceFingerprint fingerprint;
  for (const std::string& line : lines) fingerprint.text += line;
  return fingerprint;
}

}  // namespace sluice::kernels
