// Builders of small checkpoint files, right ones and wrong ones, byte by byte. They share no code with the
// readers. Not thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::testing {

/// `value` as `width` little-endian bytes.
inline std::string little_endian(std::uint64_t value, int width) {
  std::string bytes;
  for (int i = 0; i < width; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
  return bytes;
}

/// Length, header, data: a safetensors file.
inline std::string safetensors_bytes(std::string_view header, std::string_view data = {}) {
  std::string bytes = little_endian(header.size(), 8);
  bytes.append(header);
  bytes.append(data);
  return bytes;
}

/// A .npy file of the given version, its header as it is (NumPy pads with spaces to 64 bytes; readers must
/// not depend on it).
inline std::string npy_bytes(std::string_view header, std::string_view data = {}, int version = 1) {
  std::string bytes = "\x93NUMPY";
  bytes += little_endian(static_cast<std::uint64_t>(version), 2);
  bytes += little_endian(header.size(), version == 1 ? 2 : 4);
  bytes.append(header);
  bytes.append(data);
  return bytes;
}

/// The opcodes of a protocol 2 pickle, as torch.save writes them.
class PickleBytes {
 public:
  PickleBytes& op(std::string_view bytes) {
    bytes_.append(bytes);
    return *this;
  }
  PickleBytes& proto() { return op("\x80\x02"); }
  PickleBytes& global(std::string_view module, std::string_view name) {
    return op("c").op(module).op("\n").op(name).op("\n");
  }
  PickleBytes& text(std::string_view value) { return op("X").op(little_endian(value.size(), 4)).op(value); }
  /// LONG1, the widest integer that torch writes for a size.
  PickleBytes& number(std::int64_t value) {
    return op("\x8A\x08").op(little_endian(static_cast<std::uint64_t>(value), 8));
  }
  PickleBytes& numbers(const std::vector<std::int64_t>& values) {
    op("(");
    for (const std::int64_t value : values) number(value);
    return op("t");
  }
  /// The persistent id of a storage, ('storage', class, key, 'cpu', numel).
  PickleBytes& storage(std::string_view module, std::string_view type, std::string_view key,
                       std::int64_t numel) {
    return op("(").text("storage").global(module, type).text(key).text("cpu").number(numel).op("tQ");
  }
  /// _rebuild_tensor_v2(storage, offset, shape, strides, False, OrderedDict())
  PickleBytes& tensor(std::string_view type, std::string_view key, std::int64_t numel, std::int64_t offset,
                      const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides) {
    global("torch._utils", "_rebuild_tensor_v2").op("(").storage("torch", type, key, numel).number(offset);
    return numbers(shape).numbers(strides).op("\x89").global("collections", "OrderedDict").op(")RtR");
  }
  PickleBytes& stop() { return op("."); }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

/// How a member differs from what torch.save writes.
struct ZipOptions {
  int method = 0;
  int flags = 0;
  bool zip64 = false;                ///< sizes and offset in the ZIP64 extra
  std::string directory_extra = {};  ///< instead of the right one
  int local_extra_bytes = 0;         ///< torch pads here, to align the data
  std::int64_t stored_bytes = -1;    ///< compressed size in the directory; -1: the right one
  std::int64_t header_offset = -1;
  bool breaks_local_header = false;
};

/// A ZIP archive of stored members.
class ZipBytes {
 public:
  ZipBytes& add(std::string_view name, std::string_view data, const ZipOptions& options = {}) {
    const auto offset = options.header_offset >= 0 ? static_cast<std::uint64_t>(options.header_offset)
                                                   : static_cast<std::uint64_t>(bytes_.size());
    const auto stored = options.stored_bytes >= 0 ? static_cast<std::uint64_t>(options.stored_bytes)
                                                  : std::uint64_t{data.size()};
    bytes_ += options.breaks_local_header ? std::string("PK\x03\x05") : std::string("PK\x03\x04");
    bytes_ += fields(options, data.size(), stored, options.zip64);
    bytes_ += little_endian(name.size(), 2);
    bytes_ += little_endian(static_cast<std::uint64_t>(options.local_extra_bytes), 2);
    bytes_.append(name);
    bytes_.append(static_cast<std::size_t>(options.local_extra_bytes), 'Z');
    bytes_.append(data);

    std::string extra = options.directory_extra;
    if (options.zip64 && extra.empty()) {
      // An unrelated extra first, which a reader has to step over.
      extra = little_endian(0x5455, 2) + little_endian(1, 2) + "t" + little_endian(1, 2) +
              little_endian(24, 2) + little_endian(data.size(), 8) + little_endian(stored, 8) +
              little_endian(offset, 8);
    }
    directory_ += std::string("PK\x01\x02") + little_endian(20, 2) +
                  fields(options, data.size(), stored, options.zip64);
    directory_ += little_endian(name.size(), 2) + little_endian(extra.size(), 2) + little_endian(0, 2);
    directory_ += little_endian(0, 2) + little_endian(0, 2) + little_endian(0, 4);
    directory_ += little_endian(options.zip64 ? 0xFFFFFFFF : offset, 4);
    directory_.append(name);
    directory_ += extra;
    ++members_;
    return *this;
  }

  /// Offset at which the next member's local header will lie.
  std::uint64_t data_bytes() const { return bytes_.size(); }

  enum class End { kPlain, kZip64 };
  /// The archive; `members` overrides their number in the last record.
  std::string bytes(End end = End::kPlain, std::int64_t members = -1) const {
    const auto count = static_cast<std::uint64_t>(members >= 0 ? members : members_);
    std::string out = bytes_ + directory_;
    if (end == End::kZip64) {
      const std::uint64_t at = out.size();
      out += "PK\x06\x06" + little_endian(44, 8) + little_endian(45, 2) + little_endian(45, 2) +
             little_endian(0, 4) + little_endian(0, 4) + little_endian(count, 8) + little_endian(count, 8) +
             little_endian(directory_.size(), 8) + little_endian(bytes_.size(), 8);
      out += "PK\x06\x07" + little_endian(0, 4) + little_endian(at, 8) + little_endian(1, 4);
      out += "PK\x05\x06" + little_endian(0, 4) + little_endian(0xFFFFFFFF, 4) +
             little_endian(0xFFFFFFFF, 4) + little_endian(0xFFFFFFFF, 4) + little_endian(0, 2);
      return out;
    }
    out += "PK\x05\x06" + little_endian(0, 4) + little_endian(count, 2) + little_endian(count, 2) +
           little_endian(directory_.size(), 4) + little_endian(bytes_.size(), 4) + little_endian(0, 2);
    return out;
  }

 private:
  // Version to compressed and full size: the same in local headers and in the directory.
  static std::string fields(const ZipOptions& options, std::uint64_t size, std::uint64_t stored, bool zip64) {
    return little_endian(20, 2) + little_endian(static_cast<std::uint64_t>(options.flags), 2) +
           little_endian(static_cast<std::uint64_t>(options.method), 2) + little_endian(0, 4) +
           little_endian(0, 4) + little_endian(zip64 ? 0xFFFFFFFF : stored, 4) +
           little_endian(zip64 ? 0xFFFFFFFF : size, 4);
  }

  std::string bytes_;  ///< local headers and data
  std::string directory_;
  std::int64_t members_ = 0;
};

/// A torch file "archive" of one pickle and its storages "0", "1", ...
inline std::string torch_bytes(const PickleBytes& pickle, const std::vector<std::string>& storages) {
  ZipBytes zip;
  zip.add("archive/data.pkl", pickle.bytes(), {.local_extra_bytes = 5});
  zip.add("archive/byteorder", "little");
  for (std::size_t i = 0; i < storages.size(); ++i) {
    zip.add("archive/data/" + std::to_string(i), storages[i], {.local_extra_bytes = 11});
  }
  zip.add("archive/version", "3\n");
  return zip.bytes();
}

}  // namespace sluice::testing
