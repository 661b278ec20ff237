#include "offload/weights/slab_ring.h"

#include <cstring>
#include <random>

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/units.h"
#include "tests/fakes/fake_async_device.h"

namespace sluice::offload {
namespace {

using kernels::fakes::FakeAsyncDevice;
using kernels::fakes::Fault;

// Pieces of many sizes through two slabs of a device that is late: none is overwritten before it has arrived.
TEST(SlabRing, BringsEveryPieceWhole) {
  constexpr std::int64_t kSlab = 3_MiB;
  FakeAsyncDevice device({.seed = 3, .jitter = std::chrono::microseconds(3000)});
  const auto stream = device.make_fake_stream();
  std::vector<std::byte> memory(2 * kSlab);
  SlabRing slabs(memory, kSlab);
  std::mt19937 random(1);
  std::vector<std::byte> from(40 * kSlab);
  for (std::size_t at = 0; at + 4 <= from.size(); at += 4) {
    const auto bits = static_cast<std::uint32_t>(random());
    std::memcpy(from.data() + at, &bits, 4);
  }
  std::vector<std::byte> to(from.size());
  std::int64_t done = 0;
  for (std::int64_t seq = 1; done < std::ssize(from); ++seq) {
    const std::int64_t bytes = std::min<std::int64_t>(
        seq % 3 == 0 ? kSlab : 1 + static_cast<std::int64_t>(random()) % kSlab, std::ssize(from) - done);
    stream->begin_step(seq);
    slabs.send(to.data() + done, {from.data() + done, static_cast<std::size_t>(bytes)}, seq, *stream);
    stream->end_step(seq);
    done += bytes;
  }
  stream->synchronize();
  EXPECT_TRUE(to == from);
}

TEST(SlabRing, ADeviceThatFailsEndsIt) {
  FakeAsyncDevice device;
  const auto stream = device.make_fake_stream();
  stream->fail_step(2, Fault::kSticky);
  std::vector<std::byte> memory(2 * 4096);
  std::vector<std::byte> from(4096);
  std::vector<std::byte> to(4096);
  SlabRing slabs(memory, 4096);
  const auto send = [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t seq = first; seq <= last; ++seq) {
      stream->begin_step(seq);
      slabs.send(to.data(), from, seq, *stream);
      stream->end_step(seq);
    }
  };
  send(1, 2);
  try {
    send(3, 6);
    ADD_FAILURE() << "nobody noticed";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kDevice);
  }
}

}  // namespace
}  // namespace sluice::offload
