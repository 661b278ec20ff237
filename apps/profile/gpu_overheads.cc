// What beginning and ending a step, and launching what it consists of, cost the gpu lane: alone, and while
// copies take the link. A launch reads host memory, and waits there behind the copies.
#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <vector>

#include "apps/profile/parts.h"
#include "core/error.h"
#include "core/model/spec.h"
#include "core/units.h"
#include "kernels/layers/decoder.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/linear.h"

namespace sluice::apps {
namespace {

/// A decoder layer too small for its work to count: the operators of the engine's three steps of a layer.
class SmallLayer {
 public:
  static constexpr std::int64_t kRows = 4;  // sequences that decode
  static constexpr int kSteps = 3;          // before attention, attention, after it

  /// In the back half of the rig's GPU memory.
  explicit SmallLayer(Rig& rig)
      : stream_(*rig.compute),
        dtype_(rig.activation_dtype()),
        free_(rig.gpu.subspan(rig.gpu.size() / 2)),
        layout_{spec_.num_kv_heads, spec_.head_dim, KvFormat::kF16} {
    // What is random as fp16 is no fp32 that a model has.
    if (!rig.is_cuda()) std::memset(free_.data(), 0, static_cast<std::size_t>(kBytes));
    for (NormWeights* norm : {&weights_.attn_norm, &weights_.mlp_norm})
      *norm = {vector(spec_.hidden_dim), vector(spec_.hidden_dim)};
    for (LinearWeights* linear : {&weights_.q, &weights_.k, &weights_.v, &weights_.out})
      *linear = matrix(spec_.hidden_dim, spec_.hidden_dim);
    weights_.fc1 = matrix(spec_.ffn_dim, spec_.hidden_dim);
    weights_.fc2 = matrix(spec_.hidden_dim, spec_.ffn_dim);
    for (MatrixView* rows : {&x_, &normed_, &q_, &k_, &v_, &attn_}) *rows = activations(spec_.hidden_dim);
    initial_ = activations(spec_.hidden_dim);
    hidden_ = activations(spec_.ffn_dim);
    for (std::int64_t i = 0; i < kRows; ++i) pages_.push_back(take(layout_.page_stride()));
    for (std::int64_t i = 0; i < kRows; ++i)
      segments_.push_back({.pages = pages_.data() + i,
                           .first_kv = kKvPageTokens - 1,
                           .first_row = static_cast<std::int32_t>(i),
                           .num_rows = 1,
                           .kind = kernels::SegmentKind::kDecode});
  }

  /// x as at first: layers add to it, and in hundreds of them it leaves the finite numbers.
  void reset() const { stream_.copy(x_.data, initial_.data, kRows * x_.cols * dtype_bytes(dtype_)); }

  void run(int step) const {
    switch (step) {
      case 0:
        kernels::run_pre({.spec = &spec_,
                          .weights = &weights_,
                          .x = as_const(x_),
                          .normed = normed_,
                          .q = q_,
                          .k = k_,
                          .v = v_},
                         stream_);
        kernels::kv_write({.k = as_const(k_), .v = as_const(v_), .segments = segments_, .layout = layout_},
                          stream_);
        return;
      case 1:
        kernels::attention({.q = as_const(q_),
                            .segments = segments_,
                            .layout = layout_,
                            .num_heads = spec_.num_heads,
                            .scale = 0.1F,
                            .out = attn_},
                           stream_);
        return;
      default:
        kernels::run_post({.spec = &spec_,
                           .weights = &weights_,
                           .attn = as_const(attn_),
                           .x = x_,
                           .normed = normed_,
                           .hidden = hidden_},
                          stream_);
    }
  }

  /// Its products alone, whose time the rates of products have.
  void multiply() const {
    const auto product = [&](const LinearWeights& weights, const MatrixView& x, const MatrixView& y) {
      return kernels::LinearArgs{.x = as_const(x), .weight = weights.weight, .bias = weights.bias, .y = y};
    };
    kernels::linear_group(std::array{product(weights_.q, normed_, q_), product(weights_.k, normed_, k_),
                                     product(weights_.v, normed_, v_)},
                          stream_);
    kernels::linear(product(weights_.out, attn_, normed_), stream_);
    kernels::linear(product(weights_.fc1, normed_, hidden_), stream_);
    kernels::linear(product(weights_.fc2, hidden_, normed_), stream_);
  }

 private:
  using LinearWeights = kernels::LinearWeights;
  using NormWeights = kernels::NormWeights;
  static constexpr std::int64_t kBytes = 4_MiB;

  std::byte* take(std::int64_t bytes) {
    std::byte* const taken = free_.data() + used_;
    used_ += align_up(bytes, 4_KiB);
    SLUICE_ASSERT(used_ <= kBytes && used_ <= static_cast<std::int64_t>(free_.size()));
    return taken;
  }
  ConstVectorView vector(std::int64_t size) { return {take(2 * size), DType::kF16, size}; }
  LinearWeights matrix(std::int64_t rows, std::int64_t cols) {
    const std::int64_t bytes = 2 * rows * cols;
    return {{WeightFormat::kDenseF16, {take(bytes), static_cast<std::size_t>(bytes)}, rows, cols},
            vector(rows)};
  }
  MatrixView activations(std::int64_t cols) {
    return {take(kRows * cols * dtype_bytes(dtype_)), dtype_, kRows, cols, cols};
  }

  static ModelSpec spec() {
    ModelSpec spec;
    spec.num_layers = 1;
    spec.hidden_dim = spec.head_dim = 128;
    spec.ffn_dim = 512;
    spec.num_heads = spec.num_kv_heads = 1;
    return spec;
  }

  kernels::Stream& stream_;
  const DType dtype_;
  const std::span<std::byte> free_;
  std::int64_t used_ = 0;
  const ModelSpec spec_ = spec();
  const KvLayout layout_;
  kernels::DecoderWeights weights_;
  MatrixView x_, initial_, normed_, q_, k_, v_, attn_, hidden_;
  std::vector<const std::byte*> pages_;
  std::vector<kernels::PagedSegment> segments_;
};

constexpr int kLayers = 64;
static_assert(kLayers * SmallLayer::kSteps + 1 < kernels::Stream::kMaxStepsAhead);

// Milliseconds each, whatever the device: its memory is ten times as fast as its link at least.
constexpr std::int64_t kCopiedAhead = 12_GiB;
constexpr std::int64_t kCopiedBeside = 4_GiB;

}  // namespace

void measure_gpu_overheads(Rig& rig, policy::HardwareProfile& profile) {
  const SmallLayer layer(rig);
  const auto quarter = static_cast<std::int64_t>(rig.gpu.size() / 4);
  // While the lane copies, all steps are enqueued: it never waits for this thread.
  const auto get_ahead = [&] {
    layer.reset();
    if (!rig.is_cuda()) return;
    for (std::int64_t copied = 0; copied < kCopiedAhead; copied += quarter)
      rig.compute->copy(rig.gpu.data(), rig.gpu.data() + quarter, quarter);
  };
  const auto step_sec = [&] {
    const double steps = rig.seconds_behind(*rig.compute, get_ahead, kLayers * SmallLayer::kSteps,
                                            [&](int i) { layer.run(i % SmallLayer::kSteps); });
    const double products = rig.seconds_behind(*rig.compute, get_ahead, 1, [&](int) {
      for (int i = 0; i < kLayers; ++i) layer.multiply();
    });
    return std::max(0.0, steps - products) / (kLayers * SmallLayer::kSteps);
  };
  const double alone = rig.measure(step_sec).median;
  profile.overheads.gpu_usec = 1e6 * alone;
  if (!rig.is_cuda()) return;  // copies take cores and memory there: LaneBeside

  // Copies that outlast the steps, and what goes ahead of them: into the quarter that nobody needs, and out
  // of it.
  const auto bytes = std::min(quarter, static_cast<std::int64_t>(rig.host.size() / 2));
  const auto beside = [&](kernels::Stream& link, std::byte* to, const std::byte* from) {
    const double sec = rig.measure([&] {
                            for (std::int64_t copied = 0; copied < kCopiedBeside; copied += bytes)
                              link.copy(to, from, bytes);
                            const double measured = step_sec();
                            link.synchronize();
                            return measured;
                          })
                           .median;
    return 1e6 * std::max(alone, sec);
  };
  profile.overheads.gpu_beside_h2d_usec = beside(*rig.up, rig.gpu.data(), rig.host.data());
  profile.overheads.gpu_beside_d2h_usec =
      beside(*rig.down, rig.host.data() + rig.host.size() / 2, rig.gpu.data());
}

}  // namespace sluice::apps
