// The CUDA device as such: which devices it accepts and starts, and what becomes of memory that is not to be
// had.
#include <cstdlib>
#include <thread>

#include <gmock/gmock.h>

#include "core/units.h"
#include "kernels/device/cuda/check.h"
#include "tests/fakes/cuda/cuda_faults.h"
#include "tests/kernels/cuda/device_operands.h"
#include "tests/support/error_of.h"

namespace sluice::kernels {
namespace {

using fakes::is_cuda_device_started;
using sluice::testing::error_of;
using ::testing::AllOf;
using testing::CudaTest;
using ::testing::HasSubstr;

TEST(CudaArchitecture, AnOlderDeviceIsRefusedWithBothCapabilitiesAndTheRemedy) {
  for (const auto& [major, minor] : {std::pair{6, 1}, {7, 0}, {7, 5}}) {
    const Error e =
        error_of([major = major, minor = minor] { check_architecture("An Old GPU", major, minor); });
    EXPECT_EQ(e.code(), Code::kUnsupported);
    EXPECT_THAT(e.what(), AllOf(HasSubstr("An Old GPU has compute capability " + std::to_string(major) + "." +
                                          std::to_string(minor) + ", Sluice needs 8.0"),
                                HasSubstr("; use --device cpu, or a GPU of the Ampere generation")));
  }
  for (const auto& [major, minor] : {std::pair{8, 0}, {8, 6}, {9, 0}, {10, 0}, {12, 1}})
    EXPECT_NO_THROW(check_architecture("A GPU", major, minor));
}

class DeviceCuda : public CudaTest {};

TEST_F(DeviceCuda, ABuildWithoutItsKernelsIsRefusedWithTheRemedy) {
  EXPECT_NO_THROW(check_kernel_built(probe_kernel_address(), "A GPU", 9, 0));
  const Error e = error_of([] { check_kernel_built(fakes::foreign_kernel_address(), "A GPU", 9, 0); });
  EXPECT_EQ(e.code(), Code::kUnsupported) << e.what();
  EXPECT_THAT(e.what(), AllOf(HasSubstr("this build has no kernels for A GPU (sm_90)"),
                              HasSubstr("; build with 90a among SLUICE_CUDA_ARCHITECTURES")));
  stream().fill({}, std::byte{});
  EXPECT_NO_THROW(stream().synchronize()) << "the refusal leaves nothing behind";
}

TEST_F(DeviceCuda, MemoryThatCannotBePinnedIsSaidWithItsSizeAndStillTransferred) {
  std::vector<std::byte> host(3_MiB, std::byte{7});
  std::vector<std::byte> back(host.size());
  fakes::refuse_cuda_call(fakes::CudaCall::kHostRegister, 1);
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(cuda->device().pin(host), nullptr);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              AllOf(HasSubstr("cpu memory: 3.00 MiB could not be pinned (out of memory)"),
                    HasSubstr("ulimit -l"), HasSubstr("--cpu-memory")));
  const auto pinned = cuda->device().pin(host);
  EXPECT_NE(pinned, nullptr);
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(cuda->device().pin(host), nullptr) << "the driver's own refusal: it is pinned";
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("could not be pinned"));
  const DeviceMemory memory = cuda->device().allocate(std::ssize(host));
  stream().copy(memory.bytes.data(), host.data(), std::ssize(host));
  cuda->fetch(memory, back);
  EXPECT_TRUE(back == host);
}

// ---- Which devices a process starts. Each in a process of its own: the others have used device 0.

/// What an engine does with a device, from making it on one thread to destroying it on another.
void use_device_on_threads(int ordinal) {
  std::unique_ptr<Device> device = make_cuda_device(ordinal);
  EXPECT_GT(device->free_bytes(), 0);
  DeviceMemory memory = device->allocate(workspace_bytes(DeviceKind::kCuda));
  std::vector<std::byte> host(4_MiB, std::byte{3});
  std::unique_ptr<DeviceResource> pinned = device->pin(host);
  std::unique_ptr<Stream> stream = device->make_stream(StreamPriority::kBulk, memory.bytes);
  std::jthread([&] {
    stream->bind_thread();
    stream->begin_step(1);
    stream->copy(memory.bytes.data(), host.data(), std::ssize(host));
    stream->end_step(1);
  }).join();
  std::jthread([&] {
    stream->bind_thread();
    stream->await_step(1);
  }).join();
  std::jthread([&] { stream.reset(); }).join();
  std::jthread([&] { pinned.reset(); }).join();
  std::jthread([&] { memory = {}; }).join();
  std::jthread([&] { device.reset(); }).join();
}

[[noreturn]] void finish(bool as_wanted) { std::_Exit(as_wanted && !::testing::Test::HasFailure() ? 0 : 1); }

class DeviceCudaDeathTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_device_present()) GTEST_SKIP() << cuda_devices_text();
    GTEST_FLAG_SET(death_test_style, "threadsafe");
  }
};

TEST_F(DeviceCudaDeathTest, AskingWhichDevicesThereAreStartsNone) {
  const auto ask = [] {
    (void)cuda_devices_text();
    (void)cuda_device_present();
    const bool before = is_cuda_device_started(0);
    use_device_on_threads(0);
    finish(!before && is_cuda_device_started(0));
  };
  EXPECT_EXIT(ask(), ::testing::ExitedWithCode(0), "");
}

TEST_F(DeviceCudaDeathTest, AnotherDeviceLeavesTheFirstAlone) {
  if (fakes::num_cuda_devices() < 2) GTEST_SKIP() << "one device: " << cuda_devices_text();
  const auto use_second = [] {
    use_device_on_threads(1);
    finish(is_cuda_device_started(1) && !is_cuda_device_started(0));
  };
  EXPECT_EXIT(use_second(), ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace sluice::kernels
