#include "core/checkpoint/byte_source.h"

#include <array>
#include <cerrno>
#include <deque>
#include <filesystem>
#include <fstream>
#include <unistd.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/units.h"
#include "tests/fakes/temp_folder.h"

namespace sluice {
namespace {

using testing::error_of;
using ::testing::HasSubstr;
using testing::TempFolder;

/// A file whose reads follow a script: a positive number reads at most so many bytes, 0 is an early end, a
/// negative one fails with that errno.
class ScriptedFile final : public FileSource {
 public:
  ScriptedFile(const std::filesystem::path& path, std::deque<int> script)
      : FileSource(path), script_(std::move(script)) {}
  std::size_t left() const { return script_.size(); }

 protected:
  ssize_t pread_some(void* out, std::size_t bytes, std::int64_t offset) override {
    if (script_.empty()) return FileSource::pread_some(out, bytes, offset);
    const int next = script_.front();
    script_.pop_front();
    if (next >= 0)
      return next == 0 ? 0 : FileSource::pread_some(out, std::min<std::size_t>(next, bytes), offset);
    errno = -next;
    return -1;
  }

 private:
  std::deque<int> script_;
};

TEST(FileSource, ResumesShortReadsAndRetriesInterruptedOnes) {
  const TempFolder folder;
  ScriptedFile file(folder.write("f", "0123456789"), {3, -EINTR, 1, -EAGAIN});
  EXPECT_EQ(file.read_text(1, 8), "12345678");
  EXPECT_EQ(file.left(), 0U);
}

TEST(FileSource, NamesFileAndOffsetWhenTheDiskFails) {
  const TempFolder folder;
  ScriptedFile file(folder.write("f", "0123456789"), {4, -EIO});
  const Error e = error_of([&] { (void)file.read_text(1, 8); });
  EXPECT_EQ(e.code(), Code::kIo);
  EXPECT_THAT(e.what(), HasSubstr(fmt::format("{}: offset 5: reading 4 bytes: Input/output error",
                                              (folder.path() / "f").string())));
}

TEST(FileSource, ReportsAFileThatShrankMeanwhile) {
  const TempFolder folder;
  const auto path = folder.write("f", "0123456789");
  FileSource file(path);
  std::filesystem::resize_file(path, 4);
  const Error e = error_of([&] { (void)file.read_text(2, 8); });
  EXPECT_EQ(e.code(), Code::kCorrupt);
  EXPECT_THAT(e.what(), HasSubstr("offset 4: the file ended early; it had 10 bytes"));
}

TEST(FileSource, RefusesRangesOutsideTheFile) {
  const TempFolder folder;
  FileSource file(folder.write("f", "0123456789"));
  EXPECT_EQ(file.read_text(10, 0), "");
  for (const auto& range : {std::pair<std::int64_t, std::int64_t>{3, 8}, {11, 0}, {-1, 1}, {2, INT64_MAX}}) {
    const auto [offset, bytes] = range;
    const Error e = error_of([&] { (void)file.read_text(range.first, range.second); });
    EXPECT_EQ(e.code(), Code::kCorrupt);
    EXPECT_THAT(e.what(), HasSubstr(fmt::format("offset {}: {} bytes are needed here, the file has 10 in all",
                                                offset, bytes)));
  }
}

TEST(FileSource, SaysWhyItCannotBeOpened) {
  const TempFolder folder;
  EXPECT_EQ(error_of([&] { FileSource(folder.path() / "none"); }).code(), Code::kNotFound);
  EXPECT_EQ(error_of([&] { FileSource(folder.write("f", "") / "below"); }).code(), Code::kNotFound);
  EXPECT_EQ(error_of([&] { FileSource(folder.path()); }).code(), Code::kInvalidArgument);
  EXPECT_EQ(error_of([&] { FileSource("/dev/null"); }).code(), Code::kInvalidArgument);
  const Error e = error_of([&] { FileSource(folder.path() / std::string(300, 'n')); });
  EXPECT_EQ(e.code(), Code::kIo);
  EXPECT_THAT(e.what(), HasSubstr("File name too long"));
}

TEST(FileSource, LongReadsGiveTheSameBytes) {
  const TempFolder folder;
  std::string data(5_MiB + 123, '\0');
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 2654435761U >> 13);
  FileSource file(folder.write("f", data));
  std::string got;
  for (std::int64_t at = 77; at < file.size();) {
    const std::int64_t bytes = std::min<std::int64_t>(2_MiB + 1, file.size() - at);
    got += file.read_text(at, bytes);
    at += bytes;
  }
  EXPECT_TRUE(got == data.substr(77));
}

}  // namespace
}  // namespace sluice
