// The state machine of block I/O, driven by hand.
#include "offload/io/piece_queue.h"

#include <cerrno>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/offload/io/io_test_support.h"

namespace sluice::offload {
namespace {

using io_test::Buffer;
using io_test::error_of;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::int64_t kPage = kPageAlign;

class PieceQueueTest : public ::testing::Test {
 protected:
  PieceQueueTest()
      : queue_(/*queue_depth=*/3, /*piece_bytes=*/4 * kPage, /*max_requests=*/2), buffer_(64 * kPage) {
    file_ = queue_.add_file("/disk/weights.bin");
  }
  IoRequest request(IoOp op, std::int64_t offset, std::int64_t bytes, std::uint64_t tag) {
    return {op, file_, offset, buffer_.data(), bytes, tag};
  }
  Piece next() {
    const std::optional<Piece> piece = queue_.next();
    EXPECT_TRUE(piece.has_value());
    return piece.value_or(Piece{});
  }
  IoCompletion finished() {
    std::optional<FinishedRequest> done = queue_.pop_finished();
    EXPECT_TRUE(done.has_value());
    return done ? done->completion : IoCompletion{};
  }
  PieceQueue queue_;
  Buffer buffer_;
  FileId file_ = -1;
};

TEST_F(PieceQueueTest, CutsARequestAndPutsItTogether) {
  ASSERT_TRUE(queue_.try_add(request(IoOp::kRead, 8 * kPage, 10 * kPage, 7)));
  const Piece a = next(), b = next(), c = next();
  EXPECT_EQ(a.offset, 8 * kPage);
  EXPECT_EQ(b.offset, 12 * kPage);
  EXPECT_EQ(b.data, buffer_.data() + 4 * kPage);
  EXPECT_EQ(c.bytes, 2 * kPage);
  EXPECT_EQ((std::set<int>{a.slot, b.slot, c.slot}), (std::set<int>{0, 1, 2}));
  EXPECT_FALSE(queue_.next().has_value());
  queue_.finish(c.slot, c.bytes);
  queue_.finish(a.slot, a.bytes);
  EXPECT_FALSE(queue_.pop_finished().has_value());
  queue_.finish(b.slot, b.bytes);
  const IoCompletion done = finished();
  EXPECT_EQ(done.tag, 7U);
  EXPECT_TRUE(done.status.ok());
  EXPECT_EQ(done.bytes, 10 * kPage);
  EXPECT_EQ(queue_.requests_held(), 0);
}

TEST_F(PieceQueueTest, NeverHandsOutMoreThanTheQueueDepthNorTakesMoreThanMaxRequests) {
  EXPECT_TRUE(queue_.try_add(request(IoOp::kRead, 0, 40 * kPage, 1)));
  EXPECT_TRUE(queue_.try_add(request(IoOp::kRead, 0, kPage, 2)));
  EXPECT_FALSE(queue_.try_add(request(IoOp::kRead, 0, kPage, 3)));
  const Piece a = next();
  next();
  next();
  EXPECT_FALSE(queue_.next().has_value());
  EXPECT_EQ(queue_.pieces_out(), 3);
  queue_.finish(a.slot, a.bytes);
  EXPECT_EQ(next().offset, 12 * kPage);
  EXPECT_FALSE(queue_.next().has_value());
}

TEST_F(PieceQueueTest, KeepsItsPlaceUntilTheCompletionIsTaken) {
  EXPECT_TRUE(queue_.try_add(request(IoOp::kWrite, 0, 0, 1)));
  EXPECT_TRUE(queue_.try_add(request(IoOp::kWrite, 0, 0, 2)));
  EXPECT_FALSE(queue_.try_add(request(IoOp::kWrite, 0, 0, 3)));
  EXPECT_EQ(finished().tag, 1U);
  EXPECT_TRUE(queue_.try_add(request(IoOp::kWrite, 0, 0, 3)));
  EXPECT_EQ(finished().tag, 2U);
  EXPECT_EQ(finished().tag, 3U);
}

TEST_F(PieceQueueTest, ResumesAShortTransferAtTheLastBlockItPassed) {
  queue_.try_add(request(IoOp::kRead, 4 * kPage, 4 * kPage, 1));
  Piece p = next();
  queue_.finish(p.slot, 2 * kPage + 100);
  p = next();
  EXPECT_EQ(p.offset, 6 * kPage) << "O_DIRECT cannot go on at byte 100 of a block";
  EXPECT_EQ(p.data, buffer_.data() + 2 * kPage);
  EXPECT_EQ(p.bytes, 2 * kPage);
  queue_.finish(p.slot, 2 * kPage);
  EXPECT_EQ(finished().bytes, 4 * kPage);
}

TEST_F(PieceQueueTest, ResumedPiecesGoFirst) {
  queue_.try_add(request(IoOp::kRead, 0, 20 * kPage, 1));
  const Piece a = next();
  next();
  queue_.finish(a.slot, kPage);
  EXPECT_EQ(next().offset, kPage);
  EXPECT_EQ(next().offset, 8 * kPage);
}

TEST_F(PieceQueueTest, RetriesInterruptedAndBusyTransfersButNotForEver) {
  queue_.try_add(request(IoOp::kWrite, 0, kPage, 1));
  for (int i = 0; i < PieceQueue::kMaxIdleTries; ++i) {
    const Piece p = next();
    EXPECT_EQ(p.bytes, kPage);
    queue_.finish(p.slot, i % 2 == 0 ? -EINTR : -EAGAIN);
    ASSERT_FALSE(queue_.pop_finished().has_value());
  }
  queue_.finish(next().slot, -EAGAIN);
  EXPECT_EQ(finished().status.code(), Code::kIo);
}

TEST_F(PieceQueueTest, WritesThatMoveNothingEnd) {
  queue_.try_add(request(IoOp::kWrite, 0, kPage, 1));
  int tries = 0;
  for (std::optional<Piece> p = queue_.next(); p; p = queue_.next(), ++tries) queue_.finish(p->slot, 0);
  EXPECT_EQ(tries, PieceQueue::kMaxIdleTries + 1);
  EXPECT_THAT(finished().status.message(), HasSubstr("moved nothing"));
}

TEST_F(PieceQueueTest, OneIoErrorIsTriedAgainAndTheSecondIsFinal) {
  queue_.try_add(request(IoOp::kRead, 0, kPage, 1));
  queue_.finish(next().slot, -EIO);
  queue_.finish(next().slot, kPage);
  EXPECT_TRUE(finished().status.ok());

  queue_.try_add(request(IoOp::kRead, 8 * kPage, kPage, 2));
  queue_.finish(next().slot, -EIO);
  queue_.finish(next().slot, -EIO);
  const IoCompletion done = finished();
  EXPECT_EQ(done.status.code(), Code::kIo);
  EXPECT_EQ(done.bytes, 0);
  EXPECT_THAT(done.status.message(), AllOf(HasSubstr("/disk/weights.bin"), HasSubstr("offset 32768"),
                                           HasSubstr("4096 bytes"), HasSubstr("Input/output error")));
}

TEST_F(PieceQueueTest, FullDiskSaysWhatHelps) {
  queue_.try_add(request(IoOp::kWrite, 0, kPage, 1));
  queue_.finish(next().slot, -ENOSPC);
  EXPECT_THAT(finished().status.message(),
              AllOf(HasSubstr("No space left"), HasSubstr("free space"), HasSubstr("--disk-dir")));
}

TEST_F(PieceQueueTest, AReadThatMeetsTheEndOnABlockBoundaryFails) {
  queue_.try_add(request(IoOp::kRead, 4 * kPage, 4 * kPage, 1));
  queue_.finish(next().slot, kPage);
  queue_.finish(next().slot, 0);
  const IoCompletion done = finished();
  EXPECT_EQ(done.status.code(), Code::kIo);
  EXPECT_THAT(done.status.message(),
              AllOf(HasSubstr("/disk/weights.bin"), HasSubstr("offset 16384"), HasSubstr("expected 16384"),
                    HasSubstr("got 4096"), HasSubstr("truncated")));
}

TEST_F(PieceQueueTest, AReadThatMeetsTheEndInsideABlockFails) {
  queue_.try_add(request(IoOp::kRead, 0, 4 * kPage, 1));
  queue_.finish(next().slot, kPage + 10);
  int tries = 0;
  for (std::optional<Piece> p = queue_.next(); p; p = queue_.next(), ++tries) {
    EXPECT_EQ(p->offset, kPage);
    queue_.finish(p->slot, 10);
  }
  EXPECT_EQ(tries, PieceQueue::kSameEnds);
  EXPECT_THAT(finished().status.message(), AllOf(HasSubstr("expected 16384"), HasSubstr("got 4106")));
}

TEST_F(PieceQueueTest, AFailureStopsTheRequestAndNoOther) {
  queue_.try_add(request(IoOp::kRead, 0, 40 * kPage, 1));
  queue_.try_add(request(IoOp::kRead, 0, 2 * kPage, 2));
  const Piece a = next(), b = next(), c = next();
  queue_.finish(b.slot, kPage);  // waits to be resumed
  queue_.finish(a.slot, -EPERM);
  const Piece other = next();
  EXPECT_EQ(other.bytes, 2 * kPage) << "the rest of the failed request is not read";
  EXPECT_FALSE(queue_.pop_finished().has_value()) << "a piece of it is still out";
  queue_.finish(c.slot, c.bytes);
  const IoCompletion failed = finished();
  EXPECT_EQ(failed.tag, 1U);
  EXPECT_FALSE(failed.status.ok());
  EXPECT_THAT(failed.status.message(), HasSubstr("offset 0"));
  queue_.finish(other.slot, other.bytes);
  EXPECT_TRUE(finished().status.ok());
  EXPECT_EQ(queue_.pieces_out(), 0);
}

TEST_F(PieceQueueTest, CancelEndsEverythingOnceThePiecesAreBack) {
  queue_.try_add(request(IoOp::kRead, 0, 12 * kPage, 1));
  queue_.try_add(request(IoOp::kRead, 0, kPage, 2));
  const Piece a = next(), b = next();
  queue_.finish(a.slot, -EINTR);  // waits to be tried again
  queue_.cancel();
  EXPECT_FALSE(queue_.next().has_value());
  EXPECT_EQ(finished().tag, 2U);
  EXPECT_FALSE(queue_.pop_finished().has_value());
  queue_.finish(b.slot, b.bytes);
  const IoCompletion done = finished();
  EXPECT_EQ(done.tag, 1U);
  EXPECT_EQ(done.status.code(), Code::kCancelled);
  EXPECT_TRUE(queue_.try_add(request(IoOp::kRead, 0, kPage, 3))) << "usable again";
  EXPECT_EQ(next().bytes, kPage);
}

TEST_F(PieceQueueTest, MisalignedOrUnknownRequestsAreBugs) {
  const auto code_of = [&](const IoRequest& r) { return error_of([&] { queue_.try_add(r); }).code(); };
  EXPECT_EQ(code_of(request(IoOp::kRead, 1, kPage, 0)), Code::kInternal);
  EXPECT_EQ(code_of(request(IoOp::kRead, -kPage, kPage, 0)), Code::kInternal);
  EXPECT_EQ(code_of(request(IoOp::kRead, 0, kPage + 512, 0)), Code::kInternal);
  IoRequest r = request(IoOp::kRead, 0, kPage, 0);
  r.data += 512;
  EXPECT_EQ(code_of(r), Code::kInternal);
  r = request(IoOp::kRead, 0, kPage, 0);
  r.data = nullptr;
  EXPECT_EQ(code_of(r), Code::kInternal);
  r = request(IoOp::kRead, 0, kPage, 0);
  r.file = 1;
  EXPECT_EQ(code_of(r), Code::kInternal);
  EXPECT_EQ(queue_.requests_held(), 0);
}

}  // namespace
}  // namespace sluice::offload
