// Kernels of a stream overlap: what they give must be what they give one at a time.
#include <cstring>

#include "kernels/ops/attention.h"
#include "kernels/ops/layer_norm.h"
#include "kernels/ops/linear.h"
#include "tests/kernels/cuda/device_operands.h"

namespace sluice::kernels {
namespace {

using namespace testing;

enum class Pace : std::uint8_t { kOneAtATime, kAtOnce };

/// Decoder layers on random weights whose residual stream feeds itself: prompts, then one token at a time.
class Overlap : public CudaTest {
 protected:
  struct Shape {
    std::int64_t sequences, heads, head_dim, prompt, tokens;
    std::int64_t hidden() const { return heads * head_dim; }
  };

  /// The residual stream after all tokens.
  std::vector<std::byte> run(const Shape& s, Pace pace) {
    const std::int64_t hidden = s.hidden();
    const std::int64_t ffn = 2 * hidden;
    const KvLayout layout{s.heads, s.head_dim, KvFormat::kF16};
    const DeviceMemory weights = random_halves(*cuda, (4 * hidden + 2 * ffn) * hidden * 2);
    const DeviceMemory vectors = random_halves(*cuda, 8 * ffn * 2);
    const std::int64_t most_rows = s.sequences * s.prompt;
    const std::int64_t pages_each = kv_pages(s.prompt + s.tokens);
    const DeviceMemory pages =
        cuda->device().allocate(kLayers * s.sequences * pages_each * layout.page_stride());
    const DeviceMemory acts = cuda->device().allocate(most_rows * (6 * hidden + ffn) * 2);
    stream().fill(pages.bytes, std::byte{0xFF});
    stream().fill(acts.bytes, std::byte{0});
    const DeviceMemory start = random_halves(*cuda, most_rows * hidden * 2);
    stream().copy(acts.bytes.data(), start.bytes.data(), most_rows * hidden * 2);

    std::byte* at = acts.bytes.data();
    const auto matrix = [&](std::int64_t cols) {
      const MatrixView view{at, DType::kF16, most_rows, cols, cols};
      at += most_rows * cols * 2;
      return view;
    };
    const MatrixView x = matrix(hidden), normed = matrix(hidden), q = matrix(hidden), k = matrix(hidden),
                     v = matrix(hidden), attended = matrix(hidden), inner = matrix(ffn);
    const auto pause = [&] {
      if (pace == Pace::kOneAtATime) stream().synchronize();
    };
    const auto vector = [&](std::int64_t i, std::int64_t size) {
      return ConstVectorView{vectors.bytes.data() + i * ffn * 2, DType::kF16, size};
    };
    std::int64_t weight_at = 0;
    const auto weight = [&](std::int64_t out, std::int64_t in) {
      const auto bytes = static_cast<std::size_t>(out * in * 2);
      const WeightView view{WeightFormat::kDenseF16,
                            weights.bytes.subspan(static_cast<std::size_t>(weight_at), bytes), out, in};
      weight_at += out * in * 2;
      return view;
    };
    const WeightView wq = weight(hidden, hidden), wk = weight(hidden, hidden), wv = weight(hidden, hidden),
                     wo = weight(hidden, hidden), w1 = weight(ffn, hidden), w2 = weight(hidden, ffn);
    std::vector<std::vector<const std::byte*>> tables(static_cast<std::size_t>(kLayers * s.sequences));
    for (std::size_t i = 0; i < tables.size(); ++i) {
      for (std::int64_t p = 0; p < pages_each; ++p)
        tables[i].push_back(pages.bytes.data() +
                            (static_cast<std::int64_t>(i) * pages_each + p) * layout.page_stride());
    }
    for (std::int64_t token = -1; token < s.tokens; ++token) {
      const std::int64_t rows_each = token < 0 ? s.prompt : 1;
      const std::int64_t rows = s.sequences * rows_each;
      const auto of = [&](const MatrixView& view) { return view.slice_rows(0, rows); };
      const auto in = [&](const MatrixView& view) { return sluice::as_const(of(view)); };
      for (std::int64_t layer = 0; layer < kLayers; ++layer) {
        std::vector<PagedSegment> segments;
        for (std::int64_t i = 0; i < s.sequences; ++i) {
          segments.push_back({.pages = tables[static_cast<std::size_t>(layer * s.sequences + i)].data(),
                              .first_kv = token < 0 ? 0 : s.prompt + token,
                              .first_row = static_cast<std::int32_t>(i * rows_each),
                              .num_rows = static_cast<std::int32_t>(rows_each),
                              .kind = token < 0 ? SegmentKind::kPrompt : SegmentKind::kDecode});
        }
        layer_norm({.x = in(x), .gamma = vector(0, hidden), .beta = vector(1, hidden), .y = of(normed)},
                   stream());
        pause();
        const std::vector<LinearArgs> projections = {
            {.x = in(normed), .weight = wq, .bias = vector(2, hidden), .y = of(q)},
            {.x = in(normed), .weight = wk, .bias = vector(3, hidden), .y = of(k)},
            {.x = in(normed), .weight = wv, .bias = vector(4, hidden), .y = of(v)}};
        linear_group(projections, stream());
        pause();
        kv_write({.k = in(k), .v = in(v), .segments = segments, .layout = layout}, stream());
        pause();
        attention({.q = in(q),
                   .segments = segments,
                   .layout = layout,
                   .num_heads = s.heads,
                   .scale = 0.1F,
                   .out = of(attended)},
                  stream());
        pause();
        linear({.x = in(attended), .weight = wo, .bias = vector(5, hidden), .y = of(x)}, stream());
        pause();
        layer_norm({.x = in(x), .gamma = vector(6, hidden), .y = of(normed)}, stream());
        pause();
        linear({.x = in(normed), .weight = w1, .epilogue = Epilogue::kRelu, .y = of(inner)}, stream());
        pause();
        linear({.x = in(inner), .weight = w2, .residual = in(x), .y = of(x)}, stream());
        pause();
        layer_norm({.x = in(x), .y = of(x)}, stream());  // keeps the numbers in range
        pause();
      }
    }
    std::vector<std::byte> result(static_cast<std::size_t>(s.sequences * hidden * 2));
    stream().copy(result.data(), x.data, std::ssize(result));
    stream().synchronize();
    return result;
  }

  static constexpr std::int64_t kLayers = 2;
};

TEST_F(Overlap, CudaKernelsGiveTheSameBitsAsOneAtATime) {
  for (const Shape& s : {Shape{3, 4, 64, 70, 20}, Shape{16, 8, 128, 30, 12}, Shape{64, 8, 128, 5, 40},
                         Shape{40, 2, 64, 900, 6}}) {
    SCOPED_TRACE(::testing::Message()
                 << s.sequences << " sequences, " << s.heads << " heads of " << s.head_dim);
    const std::vector<std::byte> alone = run(s, Pace::kOneAtATime);
    for (std::size_t i = 0; i < alone.size(); i += 2) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, alone.data() + i, 2);
      ASSERT_NE(bits & 0x7C00U, 0x7C00U) << "element " << i / 2 << " is not a finite number";
    }
    for (int repeat = 0; repeat < 3; ++repeat) EXPECT_EQ(run(s, Pace::kAtOnce), alone);
  }
}

}  // namespace
}  // namespace sluice::kernels
