// Streams and memory of the CUDA device: uploads, steps, and what allocation promises.
#include <gmock/gmock.h>

#include "core/error.h"
#include "core/units.h"
#include "kernels/device/cuda/check.h"
#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/device/cuda/urgent_stream.h"
#include "tests/kernels/cuda/device_operands.h"

namespace sluice::kernels {
namespace {

using namespace testing;

Code code_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.code();
  }
  return Code::kOk;
}

class StreamCuda : public CudaTest {
 protected:
  CudaStream& cuda_stream() { return as_cuda(stream()); }

  /// Work of about a millisecond, so that the device falls behind the host.
  void enqueue_delay(Stream& on) {
    if (ballast.bytes.empty()) ballast = cuda->device().allocate(512_MiB);
    for (int i = 0; i < 8; ++i) on.fill(ballast.bytes, std::byte{0x3C});
  }

  DeviceMemory ballast;
};

constexpr std::int64_t kPiece = CudaStream::kMaxUpload - 4096;  // laps of the ring end at other places

/// Uploads `count` pieces of different bytes, and has the device copy each where the test finds it.
class Uploads {
 public:
  Uploads(CudaDeviceUnderTest& cuda, std::int64_t count)
      : cuda_(cuda), to_(cuda.device().allocate(count * kPiece)), piece_(static_cast<std::size_t>(kPiece)) {}

  void add() {
    std::fill(piece_.begin(), piece_.end(), value_of(count_));
    const std::byte* at = as_cuda(cuda_.stream()).upload(piece_);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(at) % 16, 0U);
    cuda_.stream().copy(to_.bytes.data() + count_++ * kPiece, at, kPiece);
  }
  void expect_all_arrived() {
    std::vector<std::byte> found(static_cast<std::size_t>(count_ * kPiece));
    cuda_.fetch(to_, found);
    for (std::int64_t i = 0; i < count_; ++i) {
      const auto first = found.begin() + i * kPiece;
      EXPECT_EQ(std::count(first, first + kPiece, value_of(i)), kPiece) << "upload " << i;
    }
  }

 private:
  static std::byte value_of(std::int64_t i) { return static_cast<std::byte>(1 + i % 251); }

  CudaDeviceUnderTest& cuda_;
  DeviceMemory to_;
  std::vector<std::byte> piece_;
  std::int64_t count_ = 0;
};

TEST_F(StreamCuda, UploadsKeepTheirBytesWhileTheRingWrapsAround) {
  Uploads uploads(*cuda, 60);
  for (std::int64_t step = 1; step <= 20; ++step) {
    stream().begin_step(step);
    enqueue_delay(stream());
    for (int i = 0; i < 3; ++i) uploads.add();
    stream().end_step(step);
  }
  stream().synchronize();
  uploads.expect_all_arrived();
}

TEST_F(StreamCuda, UploadsBetweenStepsKeepTheirBytes) {
  Uploads uploads(*cuda, 40);
  for (std::int64_t step = 1; step <= 20; ++step) {
    stream().begin_step(step);
    uploads.add();
    stream().end_step(step);
    enqueue_delay(stream());
    uploads.add();
  }
  stream().synchronize();
  uploads.expect_all_arrived();
}

TEST_F(StreamCuda, UploadsWithoutStepsKeepTheirBytes) {
  Uploads uploads(*cuda, 30);
  for (int i = 0; i < 30; ++i) {
    enqueue_delay(stream());
    uploads.add();
  }
  stream().synchronize();
  uploads.expect_all_arrived();
}

TEST_F(StreamCuda, TooLargeAnUploadIsRefused) {
  const std::vector<std::byte> most(static_cast<std::size_t>(CudaStream::kMaxUpload));
  const std::vector<std::byte> more(most.size() + 1);
  EXPECT_EQ(code_of([&] { cuda_stream().upload(more); }), Code::kInternal);
  stream().begin_step(1);
  for (int i = 0; i < 8; ++i) EXPECT_NO_THROW(cuda_stream().upload(most)) << i;
  EXPECT_EQ(code_of([&] { cuda_stream().upload(most); }), Code::kInternal) << "a step has 8 MiB";
  stream().end_step(1);
  stream().begin_step(2);
  EXPECT_NO_THROW(cuda_stream().upload(most));
  stream().end_step(2);
  const auto copies = cuda->device().make_stream(StreamPriority::kUrgent, {});
  EXPECT_EQ(code_of([&] { as_cuda(*copies).upload({most.data(), 1}); }), Code::kInternal);
}

TEST_F(StreamCuda, StepsAreTimedInOrderLongAfterTheirEventsAreUsedAgain) {
  const DeviceMemory memory = cuda->device().allocate(1_MiB);
  constexpr std::int64_t kSteps = 3000;  // each event serves at least twice
  constexpr std::int64_t kAhead = Stream::kMaxStepsAhead - 1;
  constexpr double kResolution = 2e-6;  // of an event, and of a float of milliseconds
  StepSpan before;
  const auto await = [&](std::int64_t step) {
    const StepSpan span = stream().await_step(step);
    ASSERT_TRUE(stream().is_step_done(step)) << step;
    ASSERT_LE(span.start_sec, span.end_sec) << step;
    ASSERT_GE(span.end_sec, before.end_sec) << step;
    ASSERT_GE(span.start_sec, before.end_sec - kResolution) << step;
    before = span;
  };
  for (std::int64_t step = 1; step <= kSteps; ++step) {
    stream().begin_step(step);
    stream().fill(memory.bytes, static_cast<std::byte>(step));
    stream().end_step(step);
    if (step > kAhead) await(step - kAhead);
  }
  for (std::int64_t step = kSteps - kAhead + 1; step <= kSteps; ++step) await(step);
}

TEST_F(StreamCuda, AStepIsNotDoneBeforeItsWorkIsAndStaysDone) {
  stream().begin_step(1);
  for (int i = 0; i < 50; ++i) enqueue_delay(stream());
  stream().end_step(1);
  EXPECT_FALSE(stream().is_step_done(1));
  while (!stream().is_step_done(1)) {
  }
  const StepSpan first = stream().await_step(1);
  EXPECT_TRUE(stream().is_step_done(1));
  EXPECT_EQ(stream().await_step(1).end_sec, first.end_sec);
}

TEST_F(StreamCuda, AStreamWaitsForTheStepOfAnother) {
  const auto other = cuda->device().make_stream(StreamPriority::kUrgent, {});
  const std::int64_t bytes = 256_MiB;
  const DeviceMemory from = cuda->device().allocate(bytes);
  const DeviceMemory to = cuda->device().allocate(bytes);
  const DeviceMemory copy = cuda->device().allocate(bytes);
  stream().fill(to.bytes, std::byte{0});
  stream().synchronize();
  for (std::int64_t step = 1; step <= 10; ++step) {
    const auto value = static_cast<std::byte>(step);
    stream().begin_step(step);
    enqueue_delay(stream());
    stream().fill(from.bytes, value);
    stream().copy(to.bytes.data(), from.bytes.data(), bytes);
    stream().end_step(step);
    other->wait_for_step(stream(), step);
    other->begin_step(step);
    other->copy(copy.bytes.data(), to.bytes.data(), bytes);
    other->end_step(step);
    stream().wait_for_step(*other, step);  // `to` is read until then
    std::vector<std::byte> found(4096);
    for (const std::int64_t at : {std::int64_t{0}, bytes / 2, bytes - 4096}) {
      other->copy(found.data(), copy.bytes.data() + at, 4096);
      other->synchronize();
      EXPECT_EQ(std::count(found.begin(), found.end(), value), 4096) << "step " << step << " at " << at;
    }
  }
  stream().synchronize();
}

// Pinned memory by a kernel, with words of 16, 4 and 1 bytes, pageable memory and large copies by the engine.
TEST_F(StreamCuda, UrgentCopiesMoveTheirBytesAndNoOthers) {
  constexpr std::int64_t kBytes = UrgentStream::kMostByKernel + 64;
  const auto urgent = cuda->device().make_stream(StreamPriority::kUrgent, {});
  std::vector<std::byte> pageable(static_cast<std::size_t>(kBytes)), pinned(pageable.size()),
      back(pageable.size());
  const auto registered = cuda->device().pin(pinned);
  ASSERT_NE(registered, nullptr);
  const DeviceMemory memory = cuda->device().allocate(kBytes);
  int value = 0;
  for (std::vector<std::byte>* host : {&pinned, &pageable}) {
    for (const std::int64_t bytes : {1, 4, 15, 16, 4096, 14336, 100'003, int{UrgentStream::kMostByKernel},
                                     int{UrgentStream::kMostByKernel} + 17}) {
      for (const std::int64_t offset : {0, 1, 4, 16}) {
        const auto fresh = static_cast<std::byte>(1 + ++value % 251);
        std::fill(host->begin(), host->end(), fresh);
        stream().fill(memory.bytes, std::byte{0});
        stream().synchronize();
        urgent->copy(memory.bytes.data() + offset, host->data() + offset, bytes);
        urgent->synchronize();
        cuda->fetch(memory, back);
        EXPECT_EQ(std::count(back.begin(), back.end(), fresh), bytes) << "to the device, offset " << offset;
        EXPECT_EQ(std::count(back.begin() + offset, back.begin() + offset + bytes, fresh), bytes) << offset;
        std::fill(host->begin(), host->end(), std::byte{0});
        urgent->copy(host->data() + offset, memory.bytes.data() + offset, bytes);
        urgent->synchronize();
        EXPECT_EQ(std::count(host->begin(), host->end(), fresh), bytes)
            << "from the device, offset " << offset;
        EXPECT_EQ(std::count(host->begin() + offset, host->begin() + offset + bytes, fresh), bytes) << offset;
      }
    }
  }
}

TEST_F(StreamCuda, UrgentCopiesDoNotQueueBehindBulkOnes) {
  constexpr std::int64_t kPieceBytes = 32_MiB, kPieces = 64, kSmall = 14336;
  const auto bulk = cuda->device().make_stream(StreamPriority::kBulk, {});
  const auto urgent = cuda->device().make_stream(StreamPriority::kUrgent, {});
  std::vector<std::byte> host(static_cast<std::size_t>(kPieceBytes + 2 * kSmall));
  const auto registered = cuda->device().pin(host);
  ASSERT_NE(registered, nullptr);
  const DeviceMemory memory = cuda->device().allocate(kPieceBytes + kSmall);
  std::byte* const small = memory.bytes.data() + kPieceBytes;
  for (const bool to_device : {true, false}) {
    const std::int64_t step = to_device ? 1 : 2;
    bulk->begin_step(step);
    for (std::int64_t i = 0; i < kPieces; ++i) {
      if (to_device) bulk->copy(memory.bytes.data(), host.data(), kPieceBytes);
      if (!to_device) bulk->copy(host.data(), memory.bytes.data(), kPieceBytes);
    }
    bulk->end_step(step);
    urgent->begin_step(step);
    if (to_device) urgent->copy(small, host.data() + kPieceBytes, kSmall);
    if (!to_device) urgent->copy(host.data() + kPieceBytes + kSmall, small, kSmall);
    urgent->end_step(step);
    urgent->await_step(step);
    EXPECT_FALSE(bulk->is_step_done(step))
        << "a copy of 14 KiB waited for one of 2 GiB, to the device: " << to_device;
    bulk->synchronize();
  }
}

TEST_F(StreamCuda, AllocationsStartAtAPageAndARefusedOneNamesBothNumbers) {
  std::vector<DeviceMemory> held;
  for (const std::int64_t bytes : {1, 100, 256, 4096, 5000, 70000, 1 << 20, (1 << 21) + 1}) {
    held.push_back(cuda->device().allocate(bytes));
    EXPECT_EQ(std::ssize(held.back().bytes), bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(held.back().bytes.data()) % kPageAlign, 0U) << bytes;
    stream().fill(held.back().bytes, std::byte{1});
  }
  EXPECT_NO_THROW(stream().synchronize());
  EXPECT_TRUE(cuda->device().allocate(0).bytes.empty());

  const std::int64_t free = cuda->device().free_bytes();
  const std::int64_t wanted = 16 * free;
  try {
    (void)cuda->device().allocate(wanted);
    ADD_FAILURE() << "there is no such memory";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kOutOfMemory);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("need " + format_bytes(wanted)));
    EXPECT_THAT(error.what(), ::testing::HasSubstr(" are free on "));
  }
  EXPECT_NO_THROW((void)cuda->device().allocate(4096)) << "a refusal leaves nothing behind";
}

TEST(CudaFailures, TheSameOneIsLoggedOnce) {
  const auto lines = [](cudaError_t error, int times) {
    ::testing::internal::CaptureStderr();
    for (int i = 0; i < times; ++i) log_cuda_failure(error, "a destructor");
    const std::string text = ::testing::internal::GetCapturedStderr();
    return std::count(text.begin(), text.end(), '\n');
  };
  EXPECT_EQ(lines(cudaErrorIllegalAddress, 100), 1);
  EXPECT_EQ(lines(cudaErrorIllegalAddress, 100), 0);
  EXPECT_EQ(lines(cudaErrorLaunchFailure, 100), 1);
}

}  // namespace
}  // namespace sluice::kernels
