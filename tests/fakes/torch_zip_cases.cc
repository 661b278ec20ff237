#include "tests/fakes/checkpoint_bytes.h"
#include "tests/fakes/checkpoint_cases.h"

namespace sluice::testing {
namespace {

constexpr auto kZip64 = ZipBytes::End::kZip64;

/// Adds the pickle of {'t': f16 [2, 2] in storage "0"}.
ZipBytes with_pickle(const ZipOptions& options = {}) {
  PickleBytes pickle;
  pickle.proto().op("}(").text("t").tensor("HalfStorage", "0", 4, 0, {2, 2}, {2, 1}).op("u").stop();
  ZipBytes zip;
  zip.add("archive/data.pkl", pickle.bytes(), options);
  return zip;
}

ZipBytes with_storage(const ZipOptions& options = {}) {
  return with_pickle().add("archive/data/0", "xxxxxxxx", options);
}

/// `bytes` with `replacement` at `offset` from the end.
std::string patched(std::string bytes, std::size_t from_end, std::string_view replacement) {
  return bytes.replace(bytes.size() - from_end, replacement.size(), replacement);
}

}  // namespace

std::vector<ParserCase> torch_zip_cases() {
  const std::string good = with_storage().bytes();
  const std::string good64 = with_storage({.zip64 = true}).bytes(kZip64);
  std::string tar(512, '\0');
  tar.replace(257, 5, "ustar");
  return {
      {"plain", good},
      {"padded", with_storage({.local_extra_bytes = 63}).bytes()},
      {"zip64", good64},
      {"comment", patched(good, 2, std::string("\x03\0", 2)) + "abc"},
      {"extra_cut_short", with_storage({.directory_extra = std::string("\x09\0\xFF\0", 4)}).bytes()},

      {"no_magic", "nothing", Code::kCorrupt, "offset 0: no file of torch.save"},
      {"legacy", std::string("\x80\x02\x8A\x0A\x6C\xFC\x9C\x46\xF9\x20\x6A\xA8\x50\x19.", 15),
       Code::kUnsupported, "container of before version 1.6"},
      {"tar", tar, Code::kUnsupported, "tar container"},
      {"truncated", good.substr(0, good.size() / 2), Code::kCorrupt,
       "the directory, which ends the archive, is missing"},
      {"too_short", "PK\x03\x04", Code::kCorrupt, "the directory, which ends the archive, is missing"},
      {"split", patched(good, 18, "\x01"), Code::kUnsupported, "split over several files"},
      {"split64", patched(good64, 26, "\x02"), Code::kUnsupported, "split over several files"},
      {"split64_end", patched(good64, 22 + 20 + 40, "\x01"), Code::kUnsupported, "split over several files"},
      {"end64_beyond_file", patched(good64, 22 + 12, little_endian(1 << 30, 8)), Code::kCorrupt,
       "zip: value 1073741824 is beyond the file's"},
      {"end64_elsewhere", patched(good64, 22 + 12, little_endian(0, 8)), Code::kCorrupt,
       "offset 0: zip: no ZIP64 end of directory here"},
      {"end64_cut", patched(good64, 22 + 12, little_endian(good64.size() - 10, 8)), Code::kCorrupt,
       "56 bytes are needed here"},
      {"directory_beyond_end", patched(good, 6, little_endian(1 << 30, 4)), Code::kCorrupt,
       "does not end before here"},
      {"too_many_entries", with_storage().bytes(ZipBytes::End::kPlain, 3), Code::kCorrupt,
       "zip: directory entry 2 of 3 is missing"},
      {"entry_cut", patched(good, 22 + 46 + 14 - 28, "\xFF"), Code::kCorrupt,
       "the directory ends inside this entry"},
      {"compressed", with_storage({.method = 8}).bytes(), Code::kUnsupported,
       "member 'archive/data/0' is compressed or encrypted"},
      {"encrypted", with_storage({.flags = 1}).bytes(), Code::kUnsupported,
       "member 'archive/data/0' is compressed or encrypted"},
      {"extra64_short",
       with_storage({.zip64 = true, .directory_extra = little_endian(1, 2) + little_endian(4, 2) + "four"})
           .bytes(),
       Code::kCorrupt, "the ZIP64 extra is too short"},
      {"extra64_missing",
       with_storage({.zip64 = true, .directory_extra = little_endian(9, 2) + little_endian(0, 2)}).bytes(),
       Code::kCorrupt, "a ZIP64 extra is needed and missing"},
      {"stored_differs", with_storage({.stored_bytes = 5}).bytes(), Code::kCorrupt,
       "member 'archive/data/0' is stored in 5 bytes but has 8"},
      {"header_beyond_file", with_storage({.header_offset = 1 << 30}).bytes(), Code::kCorrupt,
       "zip: value 1073741824 is beyond the file's"},
      {"header_at_end", with_storage({.header_offset = static_cast<std::int64_t>(good.size()) - 5}).bytes(),
       Code::kCorrupt, "30 bytes are needed here"},
      {"member_twice", with_storage().add("archive/data/0", "x").bytes(), Code::kCorrupt,
       "member 'archive/data/0' appears twice"},
      {"no_local_header", with_storage({.breaks_local_header = true}).bytes(), Code::kCorrupt,
       "no local header of member 'archive/data/0' here"},
      {"no_pickle", ZipBytes().add("archive/version", "3\n").bytes(), Code::kUnsupported,
       "a zip archive without data.pkl"},
      {"pickle_in_a_subfolder", ZipBytes().add("a/b/data.pkl", "N.").bytes(), Code::kUnsupported,
       "a zip archive without data.pkl"},
      {"empty_archive", ZipBytes().bytes(), Code::kUnsupported, "a zip archive without data.pkl"},
      {"torch_script", with_storage().add("archive/constants.pkl", "N.").bytes(), Code::kUnsupported,
       "TorchScript"},
      {"big_endian", with_storage().add("archive/byteorder", "big").bytes(), Code::kUnsupported,
       "the byte order is not 'little'"},
      {"storage_missing", with_pickle().bytes(), Code::kCorrupt, "storage 'archive/data/0' is missing"},
      {"storage_short", with_pickle().add("archive/data/0", "xxxxxxx").bytes(), Code::kCorrupt,
       "tensor 't': storage '0' must have 8 bytes, has 7"},
      {"storage_beyond_file",
       with_storage({.zip64 = true,
                     .directory_extra = little_endian(1, 2) + little_endian(24, 2) + little_endian(400, 8) +
                                        little_endian(400, 8) + little_endian(with_pickle().data_bytes(), 8)})
           .bytes(),
       Code::kCorrupt, "member 'archive/data/0' needs 400 bytes here"},
  };
}

}  // namespace sluice::testing
