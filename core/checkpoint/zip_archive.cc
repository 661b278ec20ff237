#include "core/checkpoint/zip_archive.h"

#include <algorithm>
#include <array>

#include "core/checkpoint/little_endian.h"
#include "core/checkpoint/printable.h"
#include "core/units.h"

namespace sluice {
namespace {

// Names and sizes from PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.7 to 4.3.16 and 4.5.3.
constexpr std::uint32_t kLocalHeader = 0x04034B50;
constexpr std::uint32_t kDirectoryEntry = 0x02014B50;
constexpr std::uint32_t kDirectoryEnd = 0x06054B50;
constexpr std::uint32_t kDirectoryEnd64 = 0x06064B50;
constexpr std::uint32_t kDirectoryEnd64Locator = 0x07064B50;
constexpr std::int64_t kLocalHeaderBytes = 30;
constexpr std::int64_t kDirectoryEntryBytes = 46;
constexpr std::int64_t kDirectoryEndBytes = 22;
constexpr std::int64_t kDirectoryEnd64Bytes = 56;
constexpr std::int64_t kLocatorBytes = 20;
constexpr std::int64_t kMaxCommentBytes = 65'535;
constexpr std::uint16_t kZip64Extra = 0x0001;
constexpr std::uint32_t kIn64 = 0xFFFFFFFF;
constexpr std::uint16_t kEncrypted = 0x0001;
// 100 MB of directory would name a million members; torch writes one per storage.
constexpr std::int64_t kMaxDirectoryBytes = 100'000'000;

struct Directory {
  std::int64_t offset = 0;
  std::int64_t bytes = 0;
  std::int64_t entries = 0;
};

// A 64-bit field as a signed offset or size; what does not fit cannot lie in the file.
std::int64_t as_signed(ByteSource& source, std::int64_t offset, std::uint64_t value) {
  if (value > static_cast<std::uint64_t>(source.size())) {
    throw_corrupt(source, offset,
                  fmt::format("zip: value {} is beyond the file's {} bytes", value, source.size()));
  }
  return static_cast<std::int64_t>(value);
}

[[noreturn]] void throw_split(const ByteSource& source) {
  throw Error(Code::kUnsupported, fmt::format("{}: a zip archive split over several files", source.name()),
              "join its parts first");
}

std::vector<std::byte> read_bytes(ByteSource& source, std::int64_t offset, std::int64_t bytes) {
  std::vector<std::byte> out(static_cast<std::size_t>(bytes));
  source.read_at(offset, out);
  return out;
}

// The last record of the archive, behind which only a comment of known length may stand.
std::int64_t find_directory_end(ByteSource& source) {
  const std::int64_t tail = std::min(source.size(), kDirectoryEndBytes + kMaxCommentBytes);
  const std::int64_t begin = source.size() - tail;
  const std::vector<std::byte> bytes = read_bytes(source, begin, tail);
  for (std::int64_t at = tail - kDirectoryEndBytes; at >= 0; --at) {
    if (load_u32(bytes.data() + at) != kDirectoryEnd) continue;
    if (at + kDirectoryEndBytes + load_u16(bytes.data() + at + 20) == tail) return begin + at;
  }
  throw_corrupt(source, source.size(), "zip: the directory, which ends the archive, is missing",
                "the file is truncated or damaged: download it again");
}

Directory read_directory_end64(ByteSource& source, std::int64_t locator_offset,
                               const std::vector<std::byte>& locator) {
  if (load_u32(locator.data() + 4) != 0 || load_u32(locator.data() + 16) > 1) throw_split(source);
  const std::int64_t at = as_signed(source, locator_offset + 8, load_u64(locator.data() + 8));
  const std::vector<std::byte> end = read_bytes(source, at, kDirectoryEnd64Bytes);
  if (load_u32(end.data()) != kDirectoryEnd64)
    throw_corrupt(source, at, "zip: no ZIP64 end of directory here");
  if (load_u32(end.data() + 16) != 0 || load_u32(end.data() + 20) != 0) throw_split(source);
  return {as_signed(source, at + 48, load_u64(end.data() + 48)),
          as_signed(source, at + 40, load_u64(end.data() + 40)),
          as_signed(source, at + 32, load_u64(end.data() + 32))};
}

Directory find_directory(ByteSource& source) {
  const std::int64_t at = find_directory_end(source);
  Directory directory;
  std::vector<std::byte> locator;
  if (at >= kLocatorBytes) locator = read_bytes(source, at - kLocatorBytes, kLocatorBytes);
  if (!locator.empty() && load_u32(locator.data()) == kDirectoryEnd64Locator) {
    directory = read_directory_end64(source, at - kLocatorBytes, locator);
  } else {
    const std::vector<std::byte> end = read_bytes(source, at, kDirectoryEndBytes);
    if (load_u16(end.data() + 4) != 0 || load_u16(end.data() + 6) != 0) throw_split(source);
    directory = {load_u32(end.data() + 16), load_u32(end.data() + 12), load_u16(end.data() + 10)};
  }
  if (directory.offset > at || directory.bytes > at - directory.offset) {
    throw_corrupt(source, at,
                  fmt::format("zip: a directory of {} bytes at offset {} does not end before here",
                              directory.bytes, directory.offset));
  }
  if (directory.bytes > kMaxDirectoryBytes) {
    throw_corrupt(
        source, at,
        fmt::format("zip: a directory of {} bytes, the limit is {}", directory.bytes, kMaxDirectoryBytes));
  }
  return directory;
}

// Replaces the fields that hold 0xFFFFFFFF by those of the ZIP64 extra, which has only these, in this order.
void apply_zip64(ByteSource& source, std::int64_t offset, std::span<const std::byte> extra,
                 std::span<std::uint64_t* const> fields) {
  while (extra.size() >= 4) {
    const std::uint16_t id = load_u16(extra.data());
    const std::size_t length = load_u16(extra.data() + 2);
    extra = extra.subspan(4);
    if (length > extra.size()) break;
    if (id == kZip64Extra) {
      std::span<const std::byte> values = extra.first(length);
      for (std::uint64_t* field : fields) {
        if (*field != kIn64) continue;
        if (values.size() < 8) throw_corrupt(source, offset, "zip: the ZIP64 extra is too short");
        *field = load_u64(values.data());
        values = values.subspan(8);
      }
      return;
    }
    extra = extra.subspan(length);
  }
  for (const std::uint64_t* field : fields) {
    if (*field == kIn64) throw_corrupt(source, offset, "zip: a ZIP64 extra is needed and missing");
  }
}

}  // namespace

bool is_zip(ByteSource& source) {
  std::array<std::byte, 4> magic{};
  if (source.size() < static_cast<std::int64_t>(magic.size())) return false;
  source.read_at(0, magic);
  return load_u32(magic.data()) == kLocalHeader || load_u32(magic.data()) == kDirectoryEnd;
}

ZipArchive::ZipArchive(ByteSource& source) {
  const Directory directory = find_directory(source);
  const std::vector<std::byte> bytes = read_bytes(source, directory.offset, directory.bytes);
  std::int64_t at = 0;
  for (std::int64_t i = 0; i < directory.entries; ++i) {
    const std::int64_t offset = directory.offset + at;  // in the file, for messages
    const std::byte* entry = bytes.data() + at;
    const std::int64_t left = directory.bytes - at;
    if (left < kDirectoryEntryBytes || load_u32(entry) != kDirectoryEntry) {
      throw_corrupt(source, offset,
                    fmt::format("zip: directory entry {} of {} is missing", i, directory.entries));
    }
    const std::int64_t name_bytes = load_u16(entry + 28);
    const std::int64_t extra_bytes = load_u16(entry + 30);
    const std::int64_t entry_bytes = kDirectoryEntryBytes + name_bytes + extra_bytes + load_u16(entry + 32);
    if (left < entry_bytes) throw_corrupt(source, offset, "zip: the directory ends inside this entry");

    ZipMember member;
    member.name.assign(reinterpret_cast<const char*>(entry + kDirectoryEntryBytes),
                       static_cast<std::size_t>(name_bytes));
    SLUICE_CHECK(load_u16(entry + 10) == 0 && (load_u16(entry + 8) & kEncrypted) == 0, Code::kUnsupported,
                 fmt::format("{}: offset {}: zip: member '{}' is compressed or encrypted", source.name(),
                             offset, printable(member.name)),
                 "torch.save stores members as they are: load and save it again with torch");
    std::uint64_t stored = load_u32(entry + 20);
    std::uint64_t size = load_u32(entry + 24);
    std::uint64_t header = load_u32(entry + 42);
    const std::array<std::uint64_t*, 3> fields = {&size, &stored, &header};
    apply_zip64(source, offset,
                {entry + kDirectoryEntryBytes + name_bytes, static_cast<std::size_t>(extra_bytes)}, fields);
    if (stored != size) {
      throw_corrupt(source, offset,
                    fmt::format("zip: member '{}' is stored in {} bytes but has {}", printable(member.name),
                                stored, size));
    }
    member.bytes = as_signed(source, offset, size);
    member.header_offset = as_signed(source, offset, header);
    if (!by_name_.emplace(member.name, members_.size()).second) {
      throw_corrupt(source, offset, fmt::format("zip: member '{}' appears twice", printable(member.name)));
    }
    members_.push_back(std::move(member));
    at += entry_bytes;
  }
}

const ZipMember* ZipArchive::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &members_[found->second];
}

ZipData ZipArchive::locate(ByteSource& source, const ZipMember& member) const {
  const std::vector<std::byte> header = read_bytes(source, member.header_offset, kLocalHeaderBytes);
  if (load_u32(header.data()) != kLocalHeader) {
    throw_corrupt(source, member.header_offset,
                  fmt::format("zip: no local header of member '{}' here", printable(member.name)));
  }
  const std::int64_t offset =
      member.header_offset + kLocalHeaderBytes + load_u16(header.data() + 26) + load_u16(header.data() + 28);
  if (offset > source.size() || member.bytes > source.size() - offset) {
    throw_corrupt(source, offset,
                  fmt::format("zip: member '{}' needs {} bytes here, the file has {} in all",
                              printable(member.name), member.bytes, source.size()));
  }
  return {offset, member.bytes};
}

}  // namespace sluice
