// y may be the residual, whatever the fused product: with pairs of features stored at once, and one by one.
#include "tests/kernels/cuda/fused_on_device.h"

namespace sluice::kernels {
namespace {

using namespace testing;

class FusedInPlace : public CudaTest {
 protected:
  /// The result of a product whose y holds the residual.
  DeviceMatrix run_in_place(FusedOperands& operands) {
    DeviceMatrix y = operands.result();
    LinearArgs args = operands.device_args();
    args.y = y.view();
    const std::int64_t row_bytes = y.cols() * dtype_bytes(y.dtype());
    for (std::int64_t r = 0; r < y.rows(); ++r)
      stream().copy(args.y.slice_rows(r, 1).data, args.residual.slice_rows(r, 1).data, row_bytes);
    args.residual = y.const_view();
    operands.run(args);
    y.fetch();
    return y;
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
      // Thread blocks share the rows' columns. Rows of y start at multiples of 4 bytes, or of 2.
      for (const std::int64_t padding : {0, 1, 6}) {
        SCOPED_TRACE(::testing::Message() << kernel.name << ", " << tokens << " rows, padding " << padding);
        FusedOperands operands(*cuda, kernel, DType::kBF16,
                               {.weight = {"divided", 700, 2056, Mask::kRandom, 0.6},
                                .tokens = tokens,
                                .bias = FusedBias::kSameType,
                                .epilogue = Epilogue::kRelu,
                                .residual = true,
                                .padding = padding});
        const DeviceMatrix apart = operands.run_in(tokens);
        run_in_place(operands).expect_same_bits(apart);
        if (HasFatalFailure()) return;
        ++ran;
      }
    }
  }
  EXPECT_GT(ran, 0);
}

}  // namespace
}  // namespace sluice::kernels
