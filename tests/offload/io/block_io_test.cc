// The real implementations on real files: io_uring and threads, direct and buffered.
#include "offload/io/block_io.h"

#include <cstdio>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <set>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "offload/io/block_file.h"
#include "offload/io/registered_memory.h"
#include "offload/io/uring_io.h"
#include "tests/offload/io/io_test_support.h"

namespace sluice::offload {
namespace {

using io_test::Buffer;
using io_test::error_of;
using io_test::kNever;
using io_test::random_bytes;
using io_test::read_plainly;
using io_test::run_one;
using io_test::TempDir;
using io_test::write_plainly;
using ::testing::AllOf;
using ::testing::HasSubstr;

struct Kind {
  const char* name;
  bool allow_uring, allow_direct;
};

class RealIo : public ::testing::TestWithParam<Kind> {
 protected:
  std::unique_ptr<BlockIo> make(int queue_depth = 8, std::int64_t piece_bytes = 16_KiB) const {
    return make_block_io({.queue_depth = queue_depth,
                          .piece_bytes = piece_bytes,
                          .max_requests = 16,
                          .allow_direct = GetParam().allow_direct,
                          .allow_uring = GetParam().allow_uring});
  }
  std::filesystem::path path(const char* name = "file") const { return folder_.path() / name; }
  TempDir folder_;
};

INSTANTIATE_TEST_SUITE_P(All, RealIo,
                         ::testing::Values(Kind{"uring_direct", true, true},
                                           Kind{"uring_buffered", true, false},
                                           Kind{"threads_direct", false, true},
                                           Kind{"threads_buffered", false, false}),
                         [](const auto& kind) { return kind.param.name; });

TEST_P(RealIo, RandomRequestsMatchACopyOfTheFile) {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    std::vector<std::byte> model = random_bytes(512 * kPageAlign, seed);
    write_plainly(path(), model);
    {
      const auto io = make();
      io_test::run_random_requests(*io, io->open(path(), FileMode::kReadWriteCreate), model, seed, 300);
    }
    EXPECT_EQ(read_plainly(path()), model);
  }
}

TEST_P(RealIo, RegisteredMemoryGivesTheSameBytes) {
  const auto content = random_bytes(300 * kPageAlign, 1);
  write_plainly(path(), content);
  const auto io = make();
  Buffer first(128 * kPageAlign), second(256 * kPageAlign), outside(64 * kPageAlign);
  io->register_memory(first.span());
  io->register_memory(second.span());
  const FileId file = io->open(path(), FileMode::kReadWriteCreate);
  struct Range {
    Buffer* buffer;
    std::int64_t at, offset, pages;
  };
  // At both ends of registered memory, in its middle, and outside.
  for (const Range& r : {Range{&first, 0, 3, 128}, Range{&second, 1, 7, 255}, Range{&second, 100, 0, 20},
                         Range{&outside, 0, 200, 64}}) {
    std::byte* data = r.buffer->data() + r.at * kPageAlign;
    const IoCompletion done =
        run_one(*io, {IoOp::kRead, file, r.offset * kPageAlign, data, r.pages * kPageAlign, 1});
    ASSERT_TRUE(done.status.ok()) << done.status.message();
    EXPECT_TRUE(std::equal(data, data + r.pages * kPageAlign, content.begin() + r.offset * kPageAlign));
  }
  EXPECT_TRUE(run_one(*io, {IoOp::kWrite, file, 300 * kPageAlign, second.data(), kPageAlign, 1}).status.ok());
  EXPECT_EQ(io->file_size(file), 301 * kPageAlign);
  EXPECT_TRUE(
      std::equal(second.data(), second.data() + kPageAlign, read_plainly(path()).begin() + 300 * kPageAlign));
}

TEST_P(RealIo, SaysNoWhenMaxRequestsAreInFlight) {
  write_plainly(path(), random_bytes(64 * kPageAlign, 1));
  const auto io = make();
  const FileId file = io->open(path(), FileMode::kRead);
  Buffer buffer(64 * kPageAlign);
  for (std::uint64_t i = 0; i < 16; ++i) {
    ASSERT_TRUE(
        io->try_submit({IoOp::kRead, file, 0, buffer.data() + i * 4 * kPageAlign, 4 * kPageAlign, i}));
  }
  EXPECT_FALSE(io->try_submit({IoOp::kRead, file, 0, buffer.data(), kPageAlign, 99}));
  EXPECT_EQ(io->in_flight(), 16);
  std::set<std::uint64_t> tags;
  while (const auto done = io->wait(kNever)) tags.insert(done->tag);
  EXPECT_EQ(tags.size(), 16U);
  EXPECT_FALSE(io->wait(kNever).has_value());
}

TEST_P(RealIo, PollingReturnsAtOnceAndLosesNothing) {
  write_plainly(path(), random_bytes(1024 * kPageAlign, 1));
  const auto io = make();
  const FileId file = io->open(path(), FileMode::kRead);
  Buffer buffer(1024 * kPageAlign);
  ASSERT_TRUE(io->try_submit({IoOp::kRead, file, 0, buffer.data(), buffer.bytes(), 5}));
  std::optional<IoCompletion> done;
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!done && std::chrono::steady_clock::now() < give_up) done = io->wait({});
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(done->bytes, buffer.bytes());
}

TEST_P(RealIo, ATruncatedFileFailsWithExpectedAndGot) {
  const auto io = make();
  Buffer buffer(32 * kPageAlign);
  for (const std::int64_t size : {20 * kPageAlign, 20 * kPageAlign + 1000, std::int64_t{0}}) {
    write_plainly(path("short"), random_bytes(size, 1));
    const FileId file = io->open(path("short"), FileMode::kRead);
    const IoCompletion done = run_one(*io, {IoOp::kRead, file, 0, buffer.data(), buffer.bytes(), 1});
    EXPECT_EQ(done.status.code(), Code::kIo);
    EXPECT_THAT(done.status.message(), AllOf(HasSubstr(path("short").string()), HasSubstr("expected 131072"),
                                             HasSubstr("truncated")));
    // What the file does hold can be read.
    EXPECT_TRUE(
        run_one(*io, {IoOp::kRead, file, 0, buffer.data(), size / kPageAlign * kPageAlign, 1}).status.ok());
  }
}

TEST_P(RealIo, OpenFailuresSayWhatIsWrong) {
  const auto io = make();
  const Error missing = error_of([&] { io->open(path("nowhere"), FileMode::kRead); });
  EXPECT_EQ(missing.code(), Code::kNotFound);
  EXPECT_THAT(missing.what(), HasSubstr("nowhere"));
  EXPECT_EQ(error_of([&] { io->open(path("no") / "folder", FileMode::kReadWriteCreate); }).code(),
            Code::kNotFound);
  EXPECT_EQ(error_of([&] { io->open(folder_.path(), FileMode::kRead); }).code(), Code::kIo);
  const Error unwritable = error_of([&] { io->open(folder_.path(), FileMode::kReadWriteCreate); });
  EXPECT_EQ(unwritable.code(), Code::kIo);
  EXPECT_THAT(unwritable.what(), HasSubstr("--disk-dir"));
}

TEST_P(RealIo, AFullDiskFailsTheWrite) {
  const auto io = make();
  Buffer buffer(16 * kPageAlign);
  const FileId file = io->open("/dev/full", FileMode::kReadWriteCreate);
  const IoCompletion done = run_one(*io, {IoOp::kWrite, file, 0, buffer.data(), buffer.bytes(), 1});
  EXPECT_EQ(done.status.code(), Code::kIo);
  EXPECT_THAT(done.status.message(),
              AllOf(HasSubstr("/dev/full"), HasSubstr("No space left"), HasSubstr("--disk-dir")));
}

TEST_P(RealIo, DestroyedInFlightTouchesNoMemoryAfterwards) {
  write_plainly(path(), random_bytes(2048 * kPageAlign, 1));
  Buffer buffer(2048 * kPageAlign);
  {
    const auto io = make();
    const FileId file = io->open(path(), FileMode::kRead);
    ASSERT_TRUE(io->try_submit({IoOp::kRead, file, 0, buffer.data(), buffer.bytes(), 1}));
  }
  std::fill_n(buffer.data(), buffer.bytes(), std::byte{0x5A});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_TRUE(std::all_of(buffer.data(), buffer.data() + buffer.bytes(),
                          [](std::byte b) { return b == std::byte{0x5A}; }));
}

TEST_P(RealIo, MayBeBuiltByOneThreadAndUsedByAnother) {
  std::vector<std::byte> model = random_bytes(64 * kPageAlign, 1);
  write_plainly(path(), model);
  const auto io = make();
  const FileId file = io->open(path(), FileMode::kReadWriteCreate);
  std::jthread([&] { io_test::run_random_requests(*io, file, model, 7, 100); }).join();
}

/// Pages of `path` in the page cache.
std::int64_t cached_pages(const std::filesystem::path& path) {
  const auto size = static_cast<std::size_t>(std::filesystem::file_size(path));
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  void* map = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  EXPECT_NE(map, MAP_FAILED);
  std::vector<unsigned char> pages(size / kPageAlign);
  EXPECT_EQ(mincore(map, size, pages.data()), 0);
  munmap(map, size);
  return std::count_if(pages.begin(), pages.end(), [](unsigned char page) { return (page & 1U) != 0; });
}

TEST_P(RealIo, LeavesNothingInThePageCache) {
  struct statfs stat = {};
  ASSERT_EQ(statfs(folder_.path().c_str(), &stat), 0);
  if (stat.f_type == TMPFS_MAGIC) GTEST_SKIP() << "the temporary folder lies in memory";
  const auto content = random_bytes(1024 * kPageAlign, 1);
  Buffer buffer(1024 * kPageAlign);
  std::copy(content.begin(), content.end(), buffer.data());
  {
    const auto io = make();
    const FileId file = io->open(path(), FileMode::kReadWriteCreate);
    ASSERT_TRUE(run_one(*io, {IoOp::kWrite, file, 0, buffer.data(), buffer.bytes(), 1}).status.ok());
    EXPECT_LE(cached_pages(path()), 16) << "after writing";
    ASSERT_TRUE(run_one(*io, {IoOp::kRead, file, 0, buffer.data(), buffer.bytes(), 1}).status.ok());
    EXPECT_LE(cached_pages(path()), 16) << "after reading";
  }
  EXPECT_EQ(cached_pages(path()), 0);
  EXPECT_EQ(read_plainly(path()), content);
}

TEST_P(RealIo, DescribesItself) {
  write_plainly(path(), random_bytes(kPageAlign, 1));
  const auto io = make(8, 1_MiB);
  io->open(path(), FileMode::kRead);
  EXPECT_THAT(io->description(), AllOf(HasSubstr(GetParam().allow_uring ? "io_uring" : "threads"),
                                       HasSubstr("queue depth 8 of 1.00 MiB")));
  EXPECT_EQ(io->description().find("buffered") == std::string::npos, GetParam().allow_direct);
}

/// Makes `system_call` fail with EPERM from now on, as sandboxes do.
void forbid(int system_call) {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offsetof(seccomp_data, nr))),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(system_call), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {4, code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    std::perror("seccomp");
    std::_Exit(90);
  }
}

/// Reads `path`, which holds `content`, by `io` into registered memory; ends the process with 0 if it is
/// right.
[[noreturn]] void read_and_exit(BlockIo& io, const std::filesystem::path& path,
                                std::span<const std::byte> content) {
  Buffer buffer(static_cast<std::int64_t>(content.size()));
  io.register_memory(buffer.span());
  const FileId file = io.open(path, FileMode::kRead);
  const IoCompletion done = run_one(io, {IoOp::kRead, file, 0, buffer.data(), buffer.bytes(), 1});
  const bool right = done.status.ok() && std::equal(content.begin(), content.end(), buffer.data());
  std::fprintf(stderr, "[%s]\n", io.description().c_str());
  std::_Exit(right ? 0 : 1);
}

// Each runs in a child process, and before the other tests: a warning comes once a process.
TEST(BlockIoFallbackDeathTest, ThreadsWhereIoUringIsForbidden) {
  const TempDir folder;
  const auto content = random_bytes(128 * kPageAlign, 1);
  write_plainly(folder.path() / "file", content);
  const auto body = [&] {
    forbid(SYS_io_uring_setup);
    const auto io = make_block_io({});
    read_and_exit(*io, folder.path() / "file", content);
  };
  EXPECT_EXIT(body(), ::testing::ExitedWithCode(0),
              "io_uring refused.*using a pool of threads(.|\n)*\\[.*threads");
  const auto direct = [&] {
    forbid(SYS_io_uring_setup);
    std::_Exit(error_of([] { make_uring_io({}); }).code() == Code::kUnsupported ? 0 : 1);
  };
  EXPECT_EXIT(direct(), ::testing::ExitedWithCode(0), "");
}

TEST(BlockIoFallbackDeathTest, UnregisteredMemoryWhereLockingIsForbidden) {
  const TempDir folder;
  std::filesystem::permissions(folder.path(), std::filesystem::perms::all);
  const auto content = random_bytes(1024 * kPageAlign, 1);
  write_plainly(folder.path() / "file", content);
  const auto body = [&] {
    const rlimit limit = {64 << 10, 64 << 10};
    setrlimit(RLIMIT_MEMLOCK, &limit);
    // The limit binds only users without CAP_IPC_LOCK.
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) std::_Exit(91);
    const auto io = make_block_io({.queue_depth = 4});
    read_and_exit(*io, folder.path() / "file", content);
  };
  EXPECT_EXIT(body(), ::testing::ExitedWithCode(0),
              "RLIMIT_MEMLOCK is 64.*(.|\n)*\\[io_uring.*0 B of 4.00 MiB registered");
}

TEST(BlockIoFallbackDeathTest, BufferedWhereDirectIsRefused) {
  // /dev/zero takes no O_DIRECT; it stands for a file system that refuses it.
  const auto body = [] {
    const auto io = make_block_io({});
    const std::vector<std::byte> zeros(64 * kPageAlign);
    read_and_exit(*io, "/dev/zero", zeros);
  };
  if (const UniqueFd direct(::open("/dev/zero", O_RDONLY | O_DIRECT | O_CLOEXEC)); !direct) {
    EXPECT_EXIT(body(), ::testing::ExitedWithCode(0), "refuses direct I/O.*buffered(.|\n)*\\[.*buffered");
  }
}

TEST(RegisteredMemory, FindsThePieceThatHoldsAWholeRange) {
  Buffer memory(16 * kPageAlign);
  std::byte* base = memory.data();
  RegisteredMemory registered(4);
  registered.add({base + 8 * kPageAlign, 4 * kPageAlign}, 0);
  registered.add({base, 4 * kPageAlign}, 1);
  registered.add({base + 4 * kPageAlign, 2 * kPageAlign}, 2);
  EXPECT_EQ(registered.find(base, 4 * kPageAlign), 1);
  EXPECT_EQ(registered.find(base, 5 * kPageAlign), -1) << "straddles two pieces";
  EXPECT_EQ(registered.find(base + 5 * kPageAlign, kPageAlign), 2);
  EXPECT_EQ(registered.find(base + 6 * kPageAlign, kPageAlign), -1) << "in the gap";
  EXPECT_EQ(registered.find(base + 11 * kPageAlign, kPageAlign), 0);
  EXPECT_EQ(registered.find(base + 12 * kPageAlign, kPageAlign), -1);
  EXPECT_EQ(registered.bytes(), 10 * kPageAlign);
}

}  // namespace
}  // namespace sluice::offload
