// y may be the residual, whatever the fused product: with pairs of features stored at once, and one by one.
#include "tests/kernels/cuda/fused_on_device.h"

namespace sluice::kernels {
namespace {

using namespace testing;

class FusedInPlace : public CudaTest {
 protected:
  /// The operands' residual with `padding` elements between rows.
  DeviceMatrix padded_residual(const FusedOperands& operands, std::int64_t padding) {
    const ConstMatrixView from = operands.device_args().residual;
    DeviceMatrix to(*cuda, from.dtype, from.rows, from.cols, padding);
    for (std::int64_t r = 0; r < from.rows; ++r)
      stream().copy(to.view().slice_rows(r, 1).data, from.slice_rows(r, 1).data,
                    from.cols * dtype_bytes(from.dtype));
    return to;
  }
};

TEST_F(FusedInPlace, GivesTheSameBits) {
  int major = 0, minor = 0;
  CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
  int ran = 0;
  for (const FusedKernel& kernel : fused_kernels()) {
    if (!kernel.runs_on(10 * major + minor)) continue;
    for (const std::int64_t tokens : {3, 16, 64}) {
      // Thread blocks share the rows' columns.
      FusedOperands operands(*cuda, kernel, DType::kBF16,
                             {.weight = {"divided", 700, 2056, Mask::kRandom, 0.6},
                              .tokens = tokens,
                              .bias = FusedBias::kSameType,
                              .epilogue = Epilogue::kRelu,
                              .residual = true});
      // Rows of y and the residual start at multiples of 4 bytes, or of 2.
      for (const std::int64_t padding : {0, 1, 6}) {
        SCOPED_TRACE(::testing::Message() << kernel.name << ", " << tokens << " rows, padding " << padding);
        LinearArgs args = operands.device_args();
        const DeviceMatrix residual = padded_residual(operands, padding);
        DeviceMatrix apart(*cuda, DType::kBF16, tokens, residual.cols(), padding);
        args.residual = residual.const_view();
        args.y = apart.view();
        operands.run(args);
        apart.fetch();
        DeviceMatrix in_place = padded_residual(operands, padding);
        args.residual = in_place.const_view();
        args.y = in_place.view();
        operands.run(args);
        in_place.fetch();
        in_place.expect_same_bits(apart);
        if (HasFatalFailure()) return;
        ++ran;
      }
    }
  }
  EXPECT_GT(ran, 0);
}

}  // namespace
}  // namespace sluice::kernels
