// Block I/O on a scripted disk: every fault that a real one may show, on demand.
#include "tests/fakes/fake_io.h"

#include <cerrno>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/offload/io/io_test_support.h"

namespace sluice::offload {
namespace {

using fakes::FakeDisk;
using fakes::FakeFault;
using fakes::FakeIo;
using fakes::FakeScript;
using io_test::Buffer;
using io_test::error_of;
using io_test::kNever;
using io_test::random_bytes;
using io_test::run_one;
using std::chrono::steady_clock;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr BlockIoOptions kSmallPieces = {.queue_depth = 4, .piece_bytes = 4 * kPageAlign, .max_requests = 16};

std::shared_ptr<FakeDisk> disk_with(const std::string& path, std::vector<std::byte> content) {
  auto disk = std::make_shared<FakeDisk>();
  disk->put(path, std::move(content));
  return disk;
}

TEST(ScriptedIo, RandomRequestsAreExactWhateverTheSystemDoes) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    std::vector<std::byte> model = random_bytes(256 * kPageAlign, seed);
    auto disk = disk_with("f", model);
    FakeScript script;
    script.seed = seed;
    script.short_share = 0.4;
    script.reorder = true;
    script.jitter = std::chrono::microseconds(50);
    script.faults = {FakeFault{IoOp::kRead, "f", 0, INT64_MAX, EINTR, 20},
                     FakeFault{IoOp::kWrite, "f", 0, INT64_MAX, EAGAIN, 5},
                     FakeFault{IoOp::kRead, "f", 100 * kPageAlign, 200 * kPageAlign, EIO, 1}};
    FakeIo io(kSmallPieces, disk, script);
    io_test::run_random_requests(io, io.open("f", FileMode::kReadWriteCreate), model, seed, 400);
    EXPECT_EQ(disk->content("f"), model);
    EXPECT_LE(io.most_out(), kSmallPieces.queue_depth);
  }
}

TEST(ScriptedIo, SurvivesOneIoError) {
  const auto content = random_bytes(64 * kPageAlign, 3);
  FakeScript script;
  script.faults = {FakeFault{IoOp::kRead, "", 10 * kPageAlign, 11 * kPageAlign, EIO, 1}};
  FakeIo io(kSmallPieces, disk_with("f", content), script);
  Buffer buffer(64 * kPageAlign);
  const FileId file = io.open("f", FileMode::kRead);
  const IoCompletion done = run_one(io, {IoOp::kRead, file, 0, buffer.data(), buffer.bytes(), 0});
  EXPECT_TRUE(done.status.ok()) << done.status.message();
  EXPECT_TRUE(std::equal(content.begin(), content.end(), buffer.data()));
}

TEST(ScriptedIo, ALastingIoErrorFailsItsRequestAlone) {
  FakeScript script;
  script.faults = {FakeFault{IoOp::kRead, "bad", 8 * kPageAlign, 9 * kPageAlign, EIO, -1}};
  auto disk = disk_with("bad", random_bytes(32 * kPageAlign, 3));
  disk->put("good", random_bytes(32 * kPageAlign, 4));
  FakeIo io(kSmallPieces, disk, script);
  Buffer a(32 * kPageAlign), b(32 * kPageAlign);
  const FileId bad = io.open("bad", FileMode::kRead), good = io.open("good", FileMode::kRead);
  ASSERT_TRUE(io.try_submit({IoOp::kRead, bad, 0, a.data(), a.bytes(), 1}));
  ASSERT_TRUE(io.try_submit({IoOp::kRead, good, 0, b.data(), b.bytes(), 2}));
  for (int i = 0; i < 2; ++i) {
    const auto done = io.wait(kNever);
    ASSERT_TRUE(done.has_value());
    EXPECT_EQ(done->status.ok(), done->tag == 2);
    if (done->tag == 1) {
      EXPECT_THAT(done->status.message(),
                  AllOf(HasSubstr("bad: read"), HasSubstr("offset 32768"), HasSubstr("(errno 5)")));
    }
  }
  // The same object goes on working.
  EXPECT_TRUE(run_one(io, {IoOp::kRead, bad, 16 * kPageAlign, a.data(), kPageAlign, 3}).status.ok());
}

TEST(ScriptedIo, AFullDiskFailsTheWriteWithTheRemedy) {
  FakeScript script;
  script.capacity_bytes = 10 * kPageAlign;
  FakeIo io(kSmallPieces, std::make_shared<FakeDisk>(), script);
  Buffer buffer(16 * kPageAlign);
  const FileId file = io.open("kv", FileMode::kReadWriteCreate);
  EXPECT_TRUE(run_one(io, {IoOp::kWrite, file, 0, buffer.data(), 8 * kPageAlign, 0}).status.ok());
  const IoCompletion done = run_one(io, {IoOp::kWrite, file, 0, buffer.data(), buffer.bytes(), 0});
  EXPECT_EQ(done.status.code(), Code::kIo);
  EXPECT_THAT(done.status.message(),
              AllOf(HasSubstr("kv: write"), HasSubstr("No space left"), HasSubstr("--disk-dir")));
}

TEST(ScriptedIo, ATruncatedFileIsAnErrorNotZeros) {
  FakeIo io(kSmallPieces, disk_with("w", random_bytes(9 * kPageAlign + 123, 5)), {});
  Buffer buffer(16 * kPageAlign);
  const FileId file = io.open("w", FileMode::kRead);
  EXPECT_EQ(io.file_size(file), 9 * kPageAlign + 123);
  const IoCompletion done = run_one(io, {IoOp::kRead, file, 0, buffer.data(), buffer.bytes(), 0});
  EXPECT_EQ(done.status.code(), Code::kIo);
  EXPECT_THAT(done.status.message(), AllOf(HasSubstr("expected 65536"), HasSubstr("truncated")));
}

TEST(ScriptedIo, ADeadlineBoundsTheWaitOnASlowDisk) {
  FakeScript script;
  script.delay = std::chrono::milliseconds(200);
  FakeIo io(kSmallPieces, disk_with("f", random_bytes(kPageAlign, 5)), script);
  Buffer buffer(kPageAlign);
  const FileId file = io.open("f", FileMode::kRead);
  const auto start = steady_clock::now();
  ASSERT_TRUE(io.try_submit({IoOp::kRead, file, 0, buffer.data(), kPageAlign, 9}));
  EXPECT_FALSE(io.wait({}).has_value()) << "a deadline in the past polls";
  EXPECT_FALSE(io.wait(start + std::chrono::milliseconds(20)).has_value());
  EXPECT_LT(steady_clock::now() - start, std::chrono::milliseconds(190));
  EXPECT_EQ(io.in_flight(), 1);
  EXPECT_EQ(io.wait(kNever)->tag, 9U);
  EXPECT_GE(steady_clock::now() - start, std::chrono::milliseconds(200));
  EXPECT_FALSE(io.wait(kNever).has_value()) << "nothing is in flight";
}

TEST(ScriptedIo, ASlowDiskKeepsItsRate) {
  FakeScript script;
  script.bytes_per_sec = 4e6;
  FakeIo io(kSmallPieces, disk_with("f", random_bytes(64 * kPageAlign, 5)), script);
  Buffer buffer(64 * kPageAlign);
  const FileId file = io.open("f", FileMode::kRead);
  const auto start = steady_clock::now();
  EXPECT_TRUE(run_one(io, {IoOp::kRead, file, 0, buffer.data(), buffer.bytes(), 0}).status.ok());
  EXPECT_GE(std::chrono::duration<double>(steady_clock::now() - start).count(), 64 * 4096 / 4e6 * 0.99);
}

TEST(ScriptedIo, CancelledRunsTouchNoMemoryAfterwards) {
  Buffer buffer(64 * kPageAlign);
  {
    FakeScript script;
    script.delay = std::chrono::milliseconds(20);
    FakeIo io(kSmallPieces, disk_with("f", random_bytes(64 * kPageAlign, 5)), script);
    const FileId file = io.open("f", FileMode::kRead);
    ASSERT_TRUE(io.try_submit({IoOp::kRead, file, 0, buffer.data(), buffer.bytes(), 0}));
  }
  std::fill_n(buffer.data(), buffer.bytes(), std::byte{0x5A});
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_TRUE(std::all_of(buffer.data(), buffer.data() + buffer.bytes(),
                          [](std::byte b) { return b == std::byte{0x5A}; }));
}

TEST(ScriptedIo, MissingFilesAndSenselessOptionsAreRefused) {
  FakeIo io(kSmallPieces, std::make_shared<FakeDisk>(), {});
  EXPECT_EQ(error_of([&] { io.open("nowhere", FileMode::kRead); }).code(), Code::kNotFound);
  const auto code_of = [](const BlockIoOptions& options) {
    return error_of([&] { FakeIo(options, std::make_shared<FakeDisk>(), {}); }).code();
  };
  EXPECT_EQ(code_of({.queue_depth = 0}), Code::kInvalidArgument);
  EXPECT_EQ(code_of({.piece_bytes = 1000}), Code::kInvalidArgument);
  EXPECT_EQ(code_of({.max_requests = 0}), Code::kInvalidArgument);
}

}  // namespace
}  // namespace sluice::offload
