// The bench of sparse products on a GPU: its judge finds what is wrong, and finds nothing wrong with what is
// right.
#include "core/error.h"
#include "kernels/bench/bench_matrix.h"
#include "kernels/bench/cuda/judge.h"
#include "kernels/bench/spmm_bench.h"
#include "kernels/device/cpu/thread_pool.h"
#include "kernels/device/cuda/cuda_stream.h"
#include "tests/kernels/cuda/device_operands.h"

namespace sluice::kernels {
namespace {

using namespace testing;

constexpr std::int64_t kRows = 20, kOutFeatures = 200, kInFeatures = 12288 + 8;

class JudgeCuda : public CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped()) return;
    ThreadPool pool(4);
    weights_.resize(kOutFeatures * kInFeatures);
    fill_bench_matrix(0.8, pool, weights_);
    x_ = cuda->device().allocate(kRows * kInFeatures * 2);
    reference_ = cuda->device().allocate(kRows * kOutFeatures * 4);
    squares_ = cuda->device().allocate(kOutFeatures * 4);
    judgement_ = cuda->device().allocate(sizeof(Judgement));
    stream().bind_thread();
    fill_random_half(x_.bytes.data(), kRows * kInFeatures, raw());
    multiply(weights_);
  }
  cudaStream_t raw() { return as_cuda(stream()).raw(); }
  float* reference() { return reinterpret_cast<float*>(reference_.bytes.data()); }
  float* squares() { return reinterpret_cast<float*>(squares_.bytes.data()); }
  void multiply(const std::vector<std::uint16_t>& weights) {
    const DeviceMemory w = cuda->put(std::as_bytes(std::span(weights)));
    reference_product(x_.bytes.data(), w.bytes.data(), reference(), squares(), kRows, kOutFeatures,
                      kInFeatures, raw());
    stream().synchronize();
  }
  /// The reference as fp16.
  std::vector<std::uint16_t> rounded() {
    std::vector<float> values(kRows * kOutFeatures);
    cuda->fetch(reference_, std::as_writable_bytes(std::span(values)));
    std::vector<std::uint16_t> out;
    for (const float value : values) out.push_back(to_half(value).bits);
    return out;
  }
  Judgement judge(const std::vector<std::uint16_t>& y) {
    const DeviceMemory on_device = cuda->put(std::as_bytes(std::span(y)));
    stream().fill(judgement_.bytes, std::byte{0});
    judge_product(on_device.bytes.data(), reference(), squares(), kRows, kOutFeatures, kInFeatures,
                  reinterpret_cast<Judgement*>(judgement_.bytes.data()), raw());
    Judgement found;
    cuda->fetch(judgement_, std::as_writable_bytes(std::span(&found, 1)));
    return found;
  }

  std::vector<std::uint16_t> weights_;
  DeviceMemory x_, reference_, squares_, judgement_;
};

TEST_F(JudgeCuda, ReferenceIsTheProductOfDoubles) {
  std::vector<std::uint16_t> x(kRows * kInFeatures);
  cuda->fetch(x_, std::as_writable_bytes(std::span(x)));
  std::vector<float> found(kRows * kOutFeatures);
  cuda->fetch(reference_, std::as_writable_bytes(std::span(found)));
  for (std::int64_t n = 0; n < kRows; ++n) {
    for (std::int64_t m = 0; m < kOutFeatures; m += 7) {
      double sum = 0;
      double l1 = 0;
      for (std::int64_t k = 0; k < kInFeatures; ++k) {
        const double product =
            static_cast<double>(to_float(Half{x[static_cast<std::size_t>(n * kInFeatures + k)]})) *
            to_float(Half{weights_[static_cast<std::size_t>(m * kInFeatures + k)]});
        sum += product;
        l1 += std::abs(product);
      }
      // Each of the sum's steps rounds a partial sum, of which none exceeds l1; typically far less is lost.
      EXPECT_NEAR(found[static_cast<std::size_t>(n * kOutFeatures + m)], sum, 1e-5 * l1) << n << ", " << m;
    }
  }
}

TEST_F(JudgeCuda, AcceptsARoundedResultAndMissesNoLostWeight) {
  const std::vector<std::uint16_t> right = rounded();
  const Judgement accepted = judge(right);
  EXPECT_LE(accepted.worst, 1.0F);
  EXPECT_GT(accepted.worst, 0.0F);
  EXPECT_EQ(accepted.not_finite, 0U);

  // One weight of some magnitude is lost; the rows that multiply it by something show it.
  std::vector<std::uint16_t> damaged = weights_;
  for (std::size_t i = 3 * kInFeatures; i < damaged.size(); ++i) {
    if (std::abs(to_float(Half{damaged[i]})) < 0.1F) continue;
    damaged[i] = 0;
    break;
  }
  ASSERT_NE(damaged, weights_);
  multiply(damaged);
  EXPECT_GT(judge(right).worst, 1.0F);
}

TEST_F(JudgeCuda, FindsWhatWasNotWrittenAndWhatStrayed) {
  std::vector<std::uint16_t> y = rounded();
  y[5] = 0xFFFF;
  y[kOutFeatures + 1] = 0x7C00;
  EXPECT_EQ(judge(y).not_finite, 2U);

  std::vector<std::uint8_t> guard(4096, 0xFF);
  guard[17] = 0;
  const DeviceMemory on_device = cuda->put(std::as_bytes(std::span(guard)));
  stream().fill(judgement_.bytes, std::byte{0});
  auto* const to = reinterpret_cast<Judgement*>(judgement_.bytes.data());
  judge_guard(on_device.bytes.data(), 4096, 0xFF, to, raw());
  const std::vector<std::uint8_t> zero(4096, 0);
  const DeviceMemory zeros = cuda->put(std::as_bytes(std::span(zero)));
  judge_equal(on_device.bytes.data(), zeros.bytes.data(), 2048, to, raw());
  Judgement found;
  cuda->fetch(judgement_, std::as_writable_bytes(std::span(&found, 1)));
  EXPECT_EQ(found.strayed, 1U);
  EXPECT_EQ(found.not_finite, 2048U);
}

// Small and ragged matrices: every product that this device has, in every form.
TEST(SpmmBenchCuda, EveryProductIsRight) {
  if (!cuda_device_present()) GTEST_SKIP() << cuda_devices_text();
  ThreadPool pool(8);
  const std::unique_ptr<Device> device = make_cuda_device(0);
  const std::unique_ptr<SpmmBench> bench = make_spmm_bench(*device, pool, {.max_rows = 40, .samples = 3});
  int measured = 0;
  const auto try_products = [&] {
    for (const std::string& product : bench->products()) {
      for (const std::int64_t rows : {1, 16, 40}) {
        const SpmmTiming timing = bench->time_product(product, rows);
        if (!timing.why_not.empty()) continue;
        // cuSPARSE may round partial sums to fp16.
        EXPECT_LE(timing.worst_error, product == "cusparse" ? 200 : 1) << product << ", " << rows << " rows";
        EXPECT_GT(timing.sec, 0);
        EXPECT_LE(timing.low_sec, timing.sec);
        ++measured;
      }
    }
  };
  for (const SpmmShape shape : {SpmmShape{512, 768}, SpmmShape{1000, 328}}) {
    for (const double sparsity : {0.0, 0.85}) {
      SCOPED_TRACE(fmt::format("{} x {}, {}", shape.rows, shape.cols, sparsity));
      bench->set_matrix(shape, sparsity);
      try_products();
      for (const Encoding encoding : all_encodings()) {
        SCOPED_TRACE(encoding_name(encoding));
        bench->set_encoding(encoding);
        if (encoding == Encoding::kDense) continue;
        try_products();
        for (const auto expansion : {SpmmBench::Expansion::kWhole, SpmmBench::Expansion::kSliced}) {
          const SpmmTiming timing = bench->time_expansion(expansion);
          EXPECT_EQ(timing.worst_error, 0);  // also of what cannot run
        }
      }
      bench->set_csr();
      try_products();
    }
  }
  EXPECT_GE(measured, 2 * 2 * 3) << "cuBLASLt at least";
}

}  // namespace
}  // namespace sluice::kernels
