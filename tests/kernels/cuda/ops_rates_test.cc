// How fast the CUDA operators are: printed, not judged.
#include <cstdio>

#include "core/error.h"
#include "kernels/ops/layer_norm.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/sample.h"
#include "tests/kernels/cuda/device_operands.h"

namespace sluice::kernels {
namespace {

using namespace testing;

class OpsCuda : public CudaTest {
 protected:
  /// Seconds a call of run(i) takes on the device, over 20 calls after 3.
  template <class Run>
  double seconds(Run run) {
    constexpr int kWarmUps = 3;
    constexpr int kRepeats = 20;
    for (int i = 0; i < kWarmUps; ++i) run(i);
    stream().synchronize();
    ++step_;
    stream().begin_step(step_);
    for (int i = 0; i < kRepeats; ++i) run(kWarmUps + i);
    stream().end_step(step_);
    const StepSpan span = stream().await_step(step_);
    EXPECT_GT(span.end_sec, span.start_sec);
    return (span.end_sec - span.start_sec) / kRepeats;
  }

  DeviceMemory random_halves(std::int64_t bytes) { return testing::random_halves(*cuda, bytes); }
  static MatrixView matrix(const DeviceMemory& memory, std::int64_t rows, std::int64_t cols,
                           DType dtype = DType::kF16) {
    return {memory.bytes.data(), dtype, rows, cols, cols};
  }

  void report_linear(std::int64_t rows, std::int64_t out, std::int64_t in, int copies) {
    std::vector<DeviceMemory> weights;
    for (int i = 0; i < copies; ++i) weights.push_back(random_halves(out * in * 2));
    const DeviceMemory x = random_halves(rows * in * 2);
    const DeviceMemory y = random_halves(rows * out * 2);
    const DeviceMemory bias = random_halves(out * 2);
    const double sec = seconds([&](int i) {
      linear(
          {.x = sluice::as_const(matrix(x, rows, in)),
           .weight = {WeightFormat::kDenseF16, weights[static_cast<std::size_t>(i % copies)].bytes, out, in},
           .bias = {bias.bytes.data(), DType::kF16, out},
           .epilogue = Epilogue::kRelu,
           .y = matrix(y, rows, out)},
          stream());
    });
    const auto elements = static_cast<double>(out * in);
    std::printf("linear %5ld x %5ld x %5ld: %8.1f us, weights at %6.0f GB/s, %6.1f TFLOP/s\n",
                static_cast<long>(rows), static_cast<long>(out), static_cast<long>(in), sec * 1e6,
                elements * 2 / sec * 1e-9, 2 * elements * static_cast<double>(rows) / sec * 1e-12);
  }

  void report_sample(const char* name, const SamplingParams& params, float spread) {
    constexpr std::int64_t kRows = 64;
    constexpr std::int64_t kVocab = 50272;
    constexpr int kCopies = 8;
    Random random(3);
    GuardedMatrix logits = GuardedMatrix::random(kRows, kVocab, 0, random);
    std::vector<SampleRow> rows(kRows);
    for (std::int64_t r = 0; r < kRows; ++r) {
      for (std::int64_t i = 0; i < kVocab; ++i) logits.at(r, i) *= spread;
      rows[static_cast<std::size_t>(r)].params = params;
      rows[static_cast<std::size_t>(r)].draw = uniform_draw(1, static_cast<std::uint64_t>(r), 0);
    }
    std::vector<std::unique_ptr<DeviceMatrix>> copies;
    for (int i = 0; i < kCopies; ++i)
      copies.push_back(std::make_unique<DeviceMatrix>(*cuda, DType::kF32, logits));
    const DeviceArray<SampleRow> device_rows(*cuda, rows);
    const DeviceArray<SampledRow> results(*cuda, std::vector<SampledRow>(kRows));
    const DeviceMemory scratch = cuda->device().allocate(sample_scratch_bytes(kRows, kVocab));
    const double sec = seconds([&](int i) {
      sample({.logits = copies[static_cast<std::size_t>(i % kCopies)]->const_view(),
              .valid_vocab = kVocab,
              .rows = device_rows.get(),
              .results = results.get(),
              .scratch = scratch.bytes},
             stream());
    });
    std::printf("sample 64 x 50272 %-28s %8.1f us\n", name, sec * 1e6);
  }

 private:
  std::int64_t step_ = 0;
};

TEST_F(OpsCuda, ReportsItsRates) {
  std::printf("%s\n", cuda->device().description().c_str());
  {
    constexpr std::int64_t kRows = 8192;
    constexpr std::int64_t kDim = 7168;
    const DeviceMemory x = random_halves(kRows * kDim * 2);  // 117 MB: more than L2
    const DeviceMemory y = random_halves(kRows * kDim * 2);
    const DeviceMemory gamma = random_halves(kDim * 2);
    const double sec = seconds([&](int) {
      layer_norm({.x = sluice::as_const(matrix(x, kRows, kDim)),
                  .gamma = {gamma.bytes.data(), DType::kF16, kDim},
                  .beta = {gamma.bytes.data(), DType::kF16, kDim},
                  .y = matrix(y, kRows, kDim)},
                 stream());
    });
    std::printf("layer_norm 8192 x 7168: %8.1f us, %6.0f GB/s\n", sec * 1e6,
                static_cast<double>(2 * kRows * kDim * 2) / sec * 1e-9);
    const double decode = seconds([&](int i) {
      const std::int64_t first = i * 64;
      layer_norm({.x = sluice::as_const(matrix(x, kRows, kDim)).slice_rows(first, 64),
                  .gamma = {gamma.bytes.data(), DType::kF16, kDim},
                  .beta = {gamma.bytes.data(), DType::kF16, kDim},
                  .y = matrix(y, kRows, kDim).slice_rows(first, 64)},
                 stream());
    });
    std::printf("layer_norm   64 x 7168: %8.1f us\n", decode * 1e6);
  }
  report_linear(64, 28672, 7168, 2);
  report_linear(64, 7168, 28672, 2);
  report_linear(16, 7168, 7168, 4);
  report_linear(1, 28672, 7168, 2);
  report_linear(8192, 28672, 7168, 1);
  stream().set_batch_invariance(BatchInvariance::kOn);
  std::printf("batch-invariant:\n");
  report_linear(64, 28672, 7168, 2);
  report_linear(16, 7168, 7168, 4);
  report_linear(8192, 28672, 7168, 1);
  report_sample("greedy", {}, 2);
  report_sample("temperature", {.do_sample = true, .temperature = 0.8F}, 2);
  report_sample("top_p 0.9", {.do_sample = true, .top_p = 0.9F}, 2);
  report_sample("top_p 0.9, flat", {.do_sample = true, .top_p = 0.9F}, 0.01F);
  report_sample("top_k 40, top_p 0.95", {.do_sample = true, .top_k = 40, .top_p = 0.95F}, 2);
}

}  // namespace
}  // namespace sluice::kernels
