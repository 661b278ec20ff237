// How fast attention and kv_write are on this machine's GPU, against the roof of its memory or tensor cores.
#include <cstdio>

#include <fmt/core.h>

#include "tests/kernels/attention_cases.h"
#include "tests/kernels/cuda/attention_on_device.h"

namespace sluice::kernels {
namespace {

using namespace testing;

struct Shape {
  std::int64_t sequences, heads, kv_heads, head_dim, tokens;
};

class AttentionCudaRates : public CudaTest {
 protected:
  /// Everything of one call, in one allocation. The pages alone are many times the L2 cache, so that each
  /// call finds it cold. The values are small and all alike.
  struct Work {
    Work(Device& device, Stream& stream, const Shape& s, bool decode)
        : layout{s.kv_heads, s.head_dim, KvFormat::kF16}, rows(s.sequences * (decode ? 1 : s.tokens)) {
      const std::int64_t pages = kv_pages(s.tokens);
      const std::int64_t row_bytes = s.heads * s.head_dim * 2;
      const std::int64_t page_bytes = s.sequences * pages * layout.page_stride();
      memory = device.allocate(page_bytes + 2 * rows * row_bytes);
      stream.fill(memory.bytes, std::byte{0x2A});
      std::byte* at = memory.bytes.data();
      for (std::int64_t i = 0; i < s.sequences; ++i) {
        std::vector<const std::byte*>& table = tables.emplace_back();
        for (std::int64_t p = 0; p < pages; ++p, at += layout.page_stride()) table.push_back(at);
        const std::int64_t num_rows = decode ? 1 : s.tokens;
        segments.push_back({.pages = table.data(),
                            .first_kv = s.tokens - num_rows,
                            .first_row = static_cast<std::int32_t>(i * num_rows),
                            .num_rows = static_cast<std::int32_t>(num_rows),
                            .kind = decode ? SegmentKind::kDecode : SegmentKind::kPrompt});
      }
      const std::int64_t cols = s.heads * s.head_dim;
      args = {.q = {at, DType::kF16, rows, cols, cols},
              .segments = segments,
              .layout = layout,
              .num_heads = s.heads,
              .scale = 0.1F,
              .out = {at + rows * row_bytes, DType::kF16, rows, cols, cols}};
    }
    KvLayout layout;
    std::int64_t rows;
    DeviceMemory memory;
    std::deque<std::vector<const std::byte*>> tables;
    std::vector<PagedSegment> segments;
    AttentionArgs args;
  };

  /// Seconds of one call: the mean of 20 after 3.
  template <class F>
  double seconds_of(const F& call) {
    for (int i = 0; i < 3; ++i) call();
    stream().synchronize();
    constexpr int kRepeats = 20;
    stream().begin_step(++step);
    for (int i = 0; i < kRepeats; ++i) call();
    stream().end_step(step);
    const StepSpan span = stream().await_step(step);
    return (span.end_sec - span.start_sec) / kRepeats;
  }

  static void report(const char* what, const Shape& s, double sec, double rate, const char* unit) {
    fmt::print(
        "{:<8} {:>3} x {:>4} tokens, {:>2} heads over {:>2}, head_dim {:>3}: {:>8.1f} us, {:>7.1f} {}\n",
        what, s.sequences, s.tokens, s.heads, s.kv_heads, s.head_dim, sec * 1e6, rate, unit);
    std::fflush(stdout);
    EXPECT_GT(rate, 0);
  }

  std::int64_t step = 0;
};

TEST_F(AttentionCudaRates, ReportsItsRates) {
  fmt::print("{}\n", cuda->device().description());
  for (const Shape& s :
       {Shape{64, 32, 32, 128, 544}, Shape{64, 32, 32, 128, 512}, Shape{16, 56, 56, 128, 2048},
        Shape{64, 40, 40, 64, 544}, Shape{64, 32, 8, 128, 2048}, Shape{64, 32, 32, 80, 544},
        Shape{4, 32, 32, 128, 2048}}) {
    Work work(cuda->device(), stream(), s, /*decode=*/true);
    const double sec = seconds_of([&] { attention(work.args, stream()); });
    const double bytes = static_cast<double>(s.sequences * s.tokens * work.layout.token_bytes());
    report("decode", s, sec, bytes / sec * 1e-9, "GB/s");
  }
  for (const Shape& s : {Shape{16, 56, 56, 128, 512}, Shape{4, 32, 32, 128, 2048}, Shape{4, 32, 8, 128, 2048},
                         Shape{16, 40, 40, 64, 512}, Shape{16, 32, 32, 80, 512}}) {
    Work work(cuda->device(), stream(), s, /*decode=*/false);
    const double sec = seconds_of([&] { attention(work.args, stream()); });
    const auto pairs = static_cast<double>(s.sequences * s.heads * s.tokens * (s.tokens + 1) / 2);
    report("prefill", s, sec, pairs * 4 * static_cast<double>(s.head_dim) / sec * 1e-12, "TFLOP/s");
  }
  for (const bool decode : {true, false}) {
    const Shape s{decode ? 64 : 16, 56, 56, 128, 512};
    Work work(cuda->device(), stream(), s, decode);
    const KvWriteArgs args{.k = work.args.q,
                           .v = sluice::as_const(work.args.out),
                           .segments = work.segments,
                           .layout = work.layout};
    const double sec = seconds_of([&] { kv_write(args, stream()); });
    const double bytes = 2 * static_cast<double>(work.rows * work.layout.token_bytes());
    report(decode ? "kv_write" : "kv_write prefill", s, sec, bytes / sec * 1e-9, "GB/s");
  }
}

}  // namespace
}  // namespace sluice::kernels
