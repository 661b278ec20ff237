// linear by way of each fused kernel of the device, as the table of measured paths would choose it.
#include "kernels/ops/linear_paths_cuda.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include <gmock/gmock.h>

#include "kernels/device/cuda/cuda_stream.h"
#include "kernels/ops/expand.h"
#include "tests/kernels/cuda/device_operands.h"
#include "tests/kernels/format_support.h"

namespace sluice::kernels {
namespace {

using namespace testing;

class LinearPathsCuda : public CudaTest {};

// One run of rows, several, and a last one of a single row; a residual that is the result. A batch-invariant
// stream expands all the same.
TEST_F(LinearPathsCuda, EachKernelTakesItsProductsInRuns) {
  constexpr std::int64_t kOut = 640;
  constexpr std::int64_t kIn = 1024;
  int taken = 0;
  for (const FusedKernel& kernel : fused_kernels()) {
    const std::array measured = {
        LinearPath{"", kernel.encoding, 0, 16.0, std::int64_t{1} << 40, kernel.name}};
    // The compute capability is the kernel's own: one that this device lacks is passed over below.
    const int capability = as_cuda(stream()).compute_capability();
    as_cuda(stream()).set_linear_paths(
        std::make_unique<LinearPaths>("any", capability, measured, fused_kernels()));
    const bool runs = kernel.runs_on(capability);
    const WeightFormat format{kernel.encoding, DType::kF16};
    const StoredMatrix matrix(format, kOut, kIn,
                              make_weights({"", kOut, kIn, Mask::kRandom, 0.8}, DType::kF16));
    const DeviceMemory memory = cuda->put(matrix.bytes);
    const WeightView weight{format, std::span<const std::byte>(memory.bytes).first(matrix.bytes.size()), kOut,
                            kIn};
    const std::vector<std::uint16_t> expanded = matrix.expand();
    const DeviceMemory scratch =
        cuda->device().allocate(expansion_bytes(format, kOut, kIn, DeviceKind::kCuda));
    Random random(9);
    const DenseWeight bias(WeightFormat::kDenseF16, 1, kOut, random);
    const DeviceWeight device_bias(*cuda, bias);
    for (const std::int64_t rows : {std::int64_t{1}, kernel.max_rows, kernel.max_rows + 1,
                                    2 * kernel.max_rows + 44, std::int64_t{-5}}) {
      const bool invariant = rows < 0;
      SCOPED_TRACE(::testing::Message() << kernel.name << " with " << rows << " rows");
      DeviceMatrix x(*cuda, DType::kF16, GuardedMatrix::random(std::abs(rows), kIn, 8, random));
      DeviceMatrix y(*cuda, DType::kF16, GuardedMatrix::random(std::abs(rows), kOut, 8, random));
      LinearArgs args{.x = x.const_view(),
                      .weight = weight,
                      .bias = device_bias.vector(),
                      .residual = sluice::as_const(y.view()),
                      .y = y.view(),
                      .scratch = scratch.bytes};
      LinearArgs host = args;
      host.x = x.const_host_view();
      host.weight = {WeightFormat::kDenseF16, std::as_bytes(std::span(expanded)), kOut, kIn};
      host.bias = bias.vector();
      host.residual = y.const_host_view();
      host.y = y.host_view();
      const std::vector<Expected> expected = linear_ref(host);
      CudaStream& on_device = as_cuda(stream());
      const FusedKernel* chosen = on_device.linear_paths().kernel_for(
          args, FusedMemory{on_device.counters(), on_device.workspace()}.bytes());
      EXPECT_EQ(chosen != nullptr, runs);
      if (runs) {
        EXPECT_EQ(chosen->name, kernel.name);
      }
      stream().set_batch_invariance(invariant ? BatchInvariance::kOn : BatchInvariance::kOff);
      linear(args, stream());
      y.fetch();
      // As for dense weights: four times the reference's bound.
      y.expect_near(expected, [](const Expected& e, std::size_t) { return 4 * e.tolerance; });
    }
    taken += runs ? 1 : 0;
  }
  if (taken == 0) GTEST_SKIP() << "no fused kernel for this device";
}

// Thread blocks count one another in memory that all products of a stream share, launched without a pause.
TEST_F(LinearPathsCuda, ProductsBackToBackLeaveTheCountersZero) {
  constexpr std::int64_t kOut = 1100;
  constexpr std::int64_t kIn = 2048;
  CudaStream& on_device = as_cuda(stream());
  int taken = 0;
  for (const FusedKernel& kernel : fused_kernels()) {
    if (!kernel.runs_on(on_device.compute_capability())) continue;
    SCOPED_TRACE(kernel.name);
    ++taken;
    const std::array measured = {
        LinearPath{"", kernel.encoding, 0, 16.0, std::int64_t{1} << 40, kernel.name}};
    on_device.set_linear_paths(
        std::make_unique<LinearPaths>("any", on_device.compute_capability(), measured, fused_kernels()));
    const WeightFormat format{kernel.encoding, DType::kF16};
    const StoredMatrix matrix(format, kOut, kIn,
                              make_weights({"", kOut, kIn, Mask::kRandom, 0.8}, DType::kF16));
    const DeviceMemory memory = cuda->put(matrix.bytes);
    const DeviceMemory scratch =
        cuda->device().allocate(expansion_bytes(format, kOut, kIn, DeviceKind::kCuda));
    Random random(3);
    const DeviceMatrix x(*cuda, DType::kF16, GuardedMatrix::random(kernel.max_rows, kIn, 0, random));
    std::vector<DeviceMatrix> results;
    for (int i = 0; i < 12; ++i) {
      const std::int64_t rows = i % 3 == 0 ? 16 : i % 3 == 1 ? kernel.max_rows : 1;
      results.emplace_back(*cuda, DType::kF16, rows, kOut);
    }
    for (DeviceMatrix& y : results) {
      linear(
          {.x = x.const_view().slice_rows(0, y.rows()),
           .weight = {format, std::span<const std::byte>(memory.bytes).first(matrix.bytes.size()), kOut, kIn},
           .y = y.view(),
           .scratch = scratch.bytes},
          stream());
    }
    std::vector<std::byte> counters(on_device.counters().size());
    stream().copy(counters.data(), on_device.counters().data(), std::ssize(counters));
    for (DeviceMatrix& y : results) y.fetch();
    EXPECT_EQ(std::ranges::count(counters, std::byte{0}), std::ssize(counters));
    for (std::size_t i = 3; i < results.size(); ++i) results[i].expect_same_bits(results[i % 3]);
  }
  if (taken == 0) GTEST_SKIP() << "no fused kernel for this device";
}

}  // namespace
}  // namespace sluice::kernels
