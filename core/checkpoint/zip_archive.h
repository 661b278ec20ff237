// The directory of a ZIP archive whose members are stored, not compressed: what torch.save writes.
// ZIP64 is read. Fields and checks: CHECKPOINTS.md, "torch zip".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/checkpoint/byte_source.h"

namespace sluice {

struct ZipMember {
  std::string name;
  std::int64_t bytes = 0;
  std::int64_t header_offset = 0;  ///< of the member's local header
};

/// Where a member's bytes lie in the archive.
struct ZipData {
  std::int64_t offset = 0;
  std::int64_t bytes = 0;
};

class ZipArchive {
 public:
  /// Reads the central directory; keeps no reference to `source`. Throws Error{kCorrupt} with file and
  /// offset, Error{kUnsupported} for split archives and for members that are compressed or encrypted.
  explicit ZipArchive(ByteSource& source);

  const std::vector<ZipMember>& members() const { return members_; }
  /// Null if there is no such member.
  const ZipMember* find(const std::string& name) const;
  /// Finds the data behind the member's local header, whose extra field (torch pads it to align the data)
  /// may differ from the directory's. Throws Error{kCorrupt} with file, offset and member.
  ZipData locate(ByteSource& source, const ZipMember& member) const;

 private:
  std::vector<ZipMember> members_;
  std::unordered_map<std::string, std::size_t> by_name_;
};

/// True if `source` begins with a local file header, or is an empty archive.
bool is_zip(ByteSource& source);

}  // namespace sluice
