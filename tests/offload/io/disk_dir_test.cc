// The folder of the disk tier and its preallocated files.
#include "offload/io/disk_dir.h"

#include <csignal>
#include <cstdio>
#include <fstream>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "offload/io/scratch_file.h"
#include "offload/memory/usable_memory.h"
#include "tests/offload/io/io_test_support.h"

namespace sluice::offload {
namespace {

namespace fs = std::filesystem;
using io_test::Buffer;
using io_test::error_of;
using io_test::run_one;
using io_test::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::int64_t entries_in(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

TEST(DiskDir, IsPrivateNamedByProcessAndRemovedAtTheEnd) {
  const TempDir parent;
  fs::path path;
  {
    const DiskDir dir(parent.path());
    path = dir.path();
    EXPECT_EQ(path.parent_path(), parent.path());
    EXPECT_THAT(path.filename().string(), StartsWith("sluice-" + std::to_string(getpid()) + "-"));
    EXPECT_EQ(fs::status(path).permissions(), fs::perms::owner_all);
    std::ofstream(path / "left") << "x";
  }
  EXPECT_FALSE(fs::exists(path));
  EXPECT_TRUE(fs::exists(parent.path()));
}

TEST(DiskDir, IsRemovedWhenAnExceptionPasses) {
  const TempDir parent;
  try {
    const DiskDir dir(parent.path());
    const ScratchFile file(dir.path(), "kv", 1_MiB);
    EXPECT_EQ(entries_in(parent.path()), 1);
    throw Error(Code::kCancelled, "stop");
  } catch (const Error&) {
  }
  EXPECT_EQ(entries_in(parent.path()), 0);
}

TEST(DiskDir, EmptyMeansTheTemporaryFolder) {
  const DiskDir dir("");
  EXPECT_EQ(dir.path().parent_path(), fs::temp_directory_path());
}

TEST(DiskDir, MakesTheLastFolderOnly) {
  const TempDir parent;
  EXPECT_TRUE(fs::exists(DiskDir(parent.path() / "new").path().parent_path()));
  const Error e = error_of([&] { DiskDir(parent.path() / "mistyped" / "new"); });
  EXPECT_EQ(e.code(), Code::kIo);
  EXPECT_THAT(e.what(), AllOf(HasSubstr("mistyped"), HasSubstr("--disk-dir")));
}

TEST(DiskDir, UnwritableFoldersAreRefusedWithTheRemedy) {
  const TempDir parent;
  std::ofstream(parent.path() / "file") << "x";
  EXPECT_EQ(error_of([&] { DiskDir(parent.path() / "file"); }).code(), Code::kIo);
  const Error e = error_of([] { DiskDir("/proc/self"); });
  EXPECT_EQ(e.code(), Code::kIo);
  EXPECT_THAT(e.what(), AllOf(HasSubstr("/proc/self"), HasSubstr("--disk-dir")));
}

TEST(DiskDir, FoldersOfAnotherUserAreRefused) {
  const TempDir parent;
  const auto body = [&] {
    fs::permissions(parent.path(), fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_exec);
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) std::_Exit(91);  // root may write anywhere
    const Error e = error_of([&] { DiskDir(parent.path()); });
    std::fprintf(stderr, "%s\n", e.what());
    std::_Exit(e.code() == Code::kIo ? 0 : 1);
  };
  EXPECT_EXIT(body(), ::testing::ExitedWithCode(0), "Permission denied.*--disk-dir");
  fs::permissions(parent.path(), fs::perms::owner_all);
}

TEST(DiskDir, RemovesWhatAKilledRunLeftAndNothingElse) {
  const TempDir parent;
  const pid_t child = fork();
  if (child == 0) {
    const DiskDir dir(parent.path());
    std::ofstream(dir.path() / "weights") << "x";
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_EQ(entries_in(parent.path()), 1);
  fs::create_directory(parent.path() / "sluice-notes");
  fs::create_directory(parent.path() / "sluice-999999999x");
  const DiskDir live(parent.path());
  EXPECT_EQ(live.removed_leftovers(), 1);
  const DiskDir second(parent.path());
  EXPECT_EQ(second.removed_leftovers(), 0) << "the folder of a living run stays";
  EXPECT_TRUE(fs::exists(live.path()));
  EXPECT_EQ(entries_in(parent.path()), 4);
}

TEST(ScratchFile, TakesItsSpaceAtOnceAndReadsAsZeros) {
  const TempDir folder;
  fs::path path;
  {
    ScratchFile file(folder.path(), "kv", 5_MiB + 1);
    path = file.path();
    EXPECT_EQ(file.bytes(), 5_MiB + kPageAlign);
    struct stat stat = {};
    ASSERT_EQ(::stat(path.c_str(), &stat), 0);
    EXPECT_EQ(stat.st_size, file.bytes());
    EXPECT_GE(stat.st_blocks * 512, file.bytes()) << "no space was reserved";
    const auto io = make_block_io({});
    const FileId id = io->open(path, FileMode::kReadWriteCreate);
    Buffer buffer(file.bytes(), std::byte{1});
    EXPECT_TRUE(run_one(*io, {IoOp::kRead, id, 0, buffer.data(), buffer.bytes(), 0}).status.ok());
    EXPECT_TRUE(std::all_of(buffer.data(), buffer.data() + buffer.bytes(),
                            [](std::byte b) { return b == std::byte{0}; }));
    ScratchFile moved = std::move(file);
    EXPECT_TRUE(fs::exists(moved.path()));
  }
  EXPECT_FALSE(fs::exists(path));
}

TEST(ScratchFile, OfSizeZeroExists) {
  const TempDir folder;
  const ScratchFile file(folder.path(), "kv", 0);
  EXPECT_EQ(fs::file_size(file.path()), 0U);
}

TEST(ScratchFile, RefusesWhatDoesNotFitWithTheNumbersAndLeavesNothing) {
  const TempDir folder;
  const std::int64_t free = usable_disk_bytes(folder.path());
  const Error e = error_of([&] { ScratchFile(folder.path(), "kv", free + 1024_GiB); });
  EXPECT_EQ(e.code(), Code::kIo);
  EXPECT_THAT(e.what(),
              AllOf(HasSubstr("need"), HasSubstr("free"), HasSubstr("missing"), HasSubstr("--disk-dir")));
  EXPECT_EQ(entries_in(folder.path()), 0);
}

TEST(ScratchFile, NeverOverwritesAFile) {
  const TempDir folder;
  std::ofstream(folder.path() / "kv") << "mine";
  EXPECT_EQ(error_of([&] { ScratchFile(folder.path(), "kv", 4096); }).code(), Code::kIo);
  EXPECT_EQ(fs::file_size(folder.path() / "kv"), 4U);
  EXPECT_EQ(error_of([&] { ScratchFile(folder.path() / "none", "kv", 4096); }).code(), Code::kIo);
}

}  // namespace
}  // namespace sluice::offload
