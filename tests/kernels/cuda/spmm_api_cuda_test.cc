// The C interface of libsluice_spmm on a GPU: products on a caller's stream, in the caller's memory.
#include <gmock/gmock.h>

#include "core/error.h"
#include "kernels/bench/bench_matrix.h"
#include "kernels/bench/cuda/judge.h"
#include "kernels/device/cpu/thread_pool.h"
#include "kernels/device/cuda/handle.h"
#include "sluice/spmm.h"
#include "tests/kernels/cuda/fused_on_device.h"

namespace sluice::kernels {
namespace {

using namespace testing;
using ::testing::HasSubstr;

constexpr std::int64_t kOut = 520, kIn = 776, kMostTokens = 24;
constexpr std::int64_t kXStride = kIn + 8, kYStride = kOut + 16;

class SpmmApiCuda : public CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped()) return;
    cudaStream_t stream = nullptr;
    CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    stream_.reset(stream);
    ASSERT_EQ(sluice_spmm_context_create(0, stream, &context_), SLUICE_SPMM_OK) << sluice_spmm_last_error();
    set_matrix(kOut, kIn);
  }
  void TearDown() override { sluice_spmm_context_free(context_); }

  void set_matrix(std::int64_t rows, std::int64_t cols) {
    rows_ = rows;
    cols_ = cols;
    ThreadPool pool(2);
    values_.resize(static_cast<std::size_t>(rows * cols));
    fill_bench_matrix(0.7, pool, values_);
  }
  /// Encodes the matrix and sets the weight of `product_`.
  void set_weight(sluice_spmm_format format) {
    matrix_ = {format, SLUICE_SPMM_F16, rows_, cols_};
    sluice_spmm_encoded* encoded = nullptr;
    ASSERT_EQ(sluice_spmm_encode(&matrix_, SLUICE_SPMM_F16, values_.data(), 2, &encoded), SLUICE_SPMM_OK);
    std::vector<std::byte> bytes(sluice_spmm_encoded_bytes(encoded));
    ASSERT_EQ(sluice_spmm_encoded_write(encoded, bytes.data(), bytes.size()), SLUICE_SPMM_OK);
    sluice_spmm_encoded_free(encoded);
    decoded_.resize(values_.size());
    ASSERT_EQ(sluice_spmm_decode(&matrix_, bytes.data(), bytes.size(), 2, decoded_.data()), SLUICE_SPMM_OK);
    weight_ = cuda->put(bytes);
    product_.struct_bytes = sizeof(product_);
    product_.weight = weight_.bytes.data();
    product_.weight_bytes = bytes.size();
  }
  void set_workspace(std::int64_t tokens) {
    ASSERT_EQ(sluice_spmm_workspace_bytes(context_, &matrix_, product_.weight_bytes, tokens,
                                          &product_.workspace_bytes),
              SLUICE_SPMM_OK);
    workspace_ = cuda->device().allocate(static_cast<std::int64_t>(product_.workspace_bytes) + 16);
    product_.workspace = workspace_.bytes.data();
  }

  UniqueStream stream_;
  sluice_spmm_context* context_ = nullptr;
  std::int64_t rows_ = 0, cols_ = 0;
  std::vector<std::uint16_t> values_, decoded_;
  sluice_spmm_matrix matrix_{};
  sluice_spmm_product product_{};
  DeviceMemory weight_, workspace_;
};

TEST_F(SpmmApiCuda, MultipliesInEveryFormat) {
  const DeviceMemory x = random_halves(*cuda, kMostTokens * kXStride * 2);
  std::vector<std::uint16_t> x_host(static_cast<std::size_t>(kMostTokens * kXStride));
  cuda->fetch(x, std::as_writable_bytes(std::span(x_host)));
  const DeviceMemory bias = random_halves(*cuda, kOut * 2);
  std::vector<std::uint16_t> bias_host(static_cast<std::size_t>(kOut));
  cuda->fetch(bias, std::as_writable_bytes(std::span(bias_host)));
  const DeviceMemory y = cuda->device().allocate((kMostTokens + 1) * kYStride * 2);
  const auto nth = [](int number) { return static_cast<sluice_spmm_format>(number); };
  for (int number = 1; sluice_spmm_format_name(nth(number)) != nullptr; ++number) {
    set_weight(nth(number));
    SCOPED_TRACE(sluice_spmm_format_name(matrix_.format));
    for (const std::int64_t tokens : {std::int64_t{1}, std::int64_t{16}, kMostTokens}) {
      const char* name = nullptr;
      ASSERT_EQ(sluice_spmm_kernel_name(context_, &matrix_, product_.weight_bytes, tokens, &name),
                SLUICE_SPMM_OK);
      SCOPED_TRACE(fmt::format("{} tokens by {}", tokens, name));
      set_workspace(tokens);
      cuda->stream().fill(y.bytes, std::byte{0xFF});
      cuda->stream().synchronize();
      product_.tokens = tokens;
      product_.x = x.bytes.data();
      product_.x_stride = kXStride;
      product_.bias = bias.bytes.data();
      product_.activation = SLUICE_SPMM_RELU;
      product_.y = y.bytes.data();
      product_.y_stride = kYStride;
      product_.y_dtype = SLUICE_SPMM_F16;
      ASSERT_EQ(sluice_spmm_run(context_, &matrix_, &product_), SLUICE_SPMM_OK) << sluice_spmm_last_error();
      CUDA_CHECK(cudaStreamSynchronize(stream_.get()));

      std::vector<std::uint16_t> found(static_cast<std::size_t>((kMostTokens + 1) * kYStride));
      cuda->fetch(y, std::as_writable_bytes(std::span(found)));
      int wrong = 0;
      for (std::int64_t n = 0; n <= kMostTokens; ++n) {
        for (std::int64_t m = 0; m < kYStride; ++m) {
          const std::uint16_t bits = found[static_cast<std::size_t>(n * kYStride + m)];
          if (n >= tokens || m >= kOut) {
            wrong += bits != 0xFFFF ? 1 : 0;
            continue;
          }
          double sum = to_float(Half{bias_host[static_cast<std::size_t>(m)]});
          double l1 = std::abs(sum);
          for (std::int64_t k = 0; k < kIn; ++k) {
            const double term =
                static_cast<double>(to_float(Half{x_host[static_cast<std::size_t>(n * kXStride + k)]})) *
                to_float(Half{decoded_[static_cast<std::size_t>(m * kIn + k)]});
            sum += term;
            l1 += std::abs(term);
          }
          // fp16 rounds the product, and perhaps once more behind the bias; sums of 16 lose 2^-23 each.
          const double tolerance = 0x1p-10 * (std::abs(sum) + 1) + kIn / 16.0 * 0x1p-23 * l1;
          const double value = to_float(Half{bits});
          wrong += std::abs(value - std::max(sum, 0.0)) <= tolerance ? 0 : 1;
        }
      }
      EXPECT_EQ(wrong, 0);
    }
  }
}

// A matrix that is large enough for a fused kernel to be the measured choice; its counters are the context's.
TEST_F(SpmmApiCuda, AGraphOfAFusedProductMayBeLaunchedAgain) {
  constexpr std::int64_t kSide = 4096;
  constexpr std::int64_t kTokens = 16;
  set_matrix(kSide, kSide);
  set_weight(SLUICE_SPMM_BANK_CSL);
  const char* name = nullptr;
  ASSERT_EQ(sluice_spmm_kernel_name(context_, &matrix_, product_.weight_bytes, kTokens, &name),
            SLUICE_SPMM_OK);
  if (std::string_view(name).starts_with("expand"))
    GTEST_SKIP() << "no fused product measured here: " << name;
  const DeviceMemory x = random_halves(*cuda, kTokens * kSide * 2);
  std::vector<std::uint16_t> x_host(static_cast<std::size_t>(kTokens * kSide));
  cuda->fetch(x, std::as_writable_bytes(std::span(x_host)));
  const DeviceMemory y = cuda->device().allocate(kTokens * kSide * 2);
  set_workspace(kTokens);
  EXPECT_LE(product_.workspace_bytes, std::size_t{kScratchBytes});
  product_.tokens = kTokens;
  product_.x = x.bytes.data();
  product_.x_stride = kSide;
  product_.y = y.bytes.data();
  product_.y_stride = kSide;
  product_.y_dtype = SLUICE_SPMM_F16;
  const auto result = [&] {
    CUDA_CHECK(cudaStreamSynchronize(stream_.get()));
    std::vector<std::uint16_t> found(static_cast<std::size_t>(kTokens * kSide));
    cuda->fetch(y, std::as_writable_bytes(std::span(found)));
    return found;
  };
  const auto run = [&] {
    ASSERT_EQ(sluice_spmm_run(context_, &matrix_, &product_), SLUICE_SPMM_OK) << sluice_spmm_last_error();
  };
  run();
  const std::vector<std::uint16_t> once = result();
  const CapturedGraph graph(stream_.get(), run);
  for (int i = 0; i < 2; ++i) {
    cuda->stream().fill(y.bytes, std::byte{0xFF});
    cuda->stream().synchronize();
    graph.launch();
    EXPECT_EQ(result(), once);
  }
  int wrong = 0;
  for (std::int64_t n = 0; n < kTokens; ++n) {
    for (std::int64_t m = n; m < kSide; m += 67) {
      double sum = 0;
      double l1 = 0;
      for (std::int64_t k = 0; k < kSide; ++k) {
        const double term =
            static_cast<double>(to_float(Half{x_host[static_cast<std::size_t>(n * kSide + k)]})) *
            to_float(Half{decoded_[static_cast<std::size_t>(m * kSide + k)]});
        sum += term;
        l1 += std::abs(term);
      }
      const double value = to_float(Half{once[static_cast<std::size_t>(n * kSide + m)]});
      wrong += std::abs(value - sum) <= 0x1p-10 * (std::abs(sum) + 1) + kSide / 16.0 * 0x1p-23 * l1 ? 0 : 1;
    }
  }
  EXPECT_EQ(wrong, 0);
}

TEST_F(SpmmApiCuda, RefusesWhatWouldReadOrWriteElsewhere) {
  set_weight(SLUICE_SPMM_TILED_CSL);
  const DeviceMemory x = random_halves(*cuda, 4 * kIn * 2);
  const DeviceMemory y = cuda->device().allocate(4 * kOut * 4);
  set_workspace(4);
  product_.tokens = 4;
  product_.x = x.bytes.data();
  product_.y = y.bytes.data();
  const auto refused = [&](const sluice_spmm_product& product, sluice_spmm_status status, const char* what) {
    EXPECT_EQ(sluice_spmm_run(context_, &matrix_, &product), status);
    EXPECT_THAT(sluice_spmm_last_error(), HasSubstr(what));
  };
  sluice_spmm_product wrong = product_;
  wrong.struct_bytes -= 8;
  refused(wrong, SLUICE_SPMM_INVALID_ARGUMENT, "struct_bytes");
  wrong = product_;
  wrong.workspace_bytes = 1;
  refused(wrong, SLUICE_SPMM_INVALID_ARGUMENT, "workspace");
  wrong = product_;
  wrong.weight = weight_.bytes.data() + 16;
  refused(wrong, SLUICE_SPMM_INVALID_ARGUMENT, "aligned");
  wrong = product_;
  wrong.weight_bytes = std::size_t{1} << 40;
  refused(wrong, SLUICE_SPMM_CORRUPT, "bytes");
  wrong = product_;
  wrong.x_stride = kIn - 1;
  refused(wrong, SLUICE_SPMM_INVALID_ARGUMENT, "x_stride");
  wrong = product_;
  wrong.tokens = -1;
  refused(wrong, SLUICE_SPMM_INVALID_ARGUMENT, "tokens");
  wrong = product_;
  wrong.y_dtype = SLUICE_SPMM_F32;
  wrong.residual = y.bytes.data();
  refused(wrong, SLUICE_SPMM_INVALID_ARGUMENT, "residual");
  wrong = product_;
  wrong.tokens = 0;
  EXPECT_EQ(sluice_spmm_run(context_, &matrix_, &wrong), SLUICE_SPMM_OK);
}

}  // namespace
}  // namespace sluice::kernels
