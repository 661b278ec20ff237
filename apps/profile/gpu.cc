#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "apps/attention_batch.h"
#include "apps/profile/parts.h"
#include "core/units.h"
#include "kernels/format/format.h"
#include "kernels/ops/expand.h"
#include "kernels/ops/linear.h"

namespace sluice::apps {
namespace {

struct Shape {
  std::int64_t out = 0, in = 0;
  double million_weights() const { return static_cast<double>(out * in) * 1e-6; }
};

// On a GPU two sizes: a large model's MLP, and the attention's projections of a model of 13B parameters,
// whose tiles fill the multiprocessors badly. On a CPU what it can multiply in seconds: there the rate hardly
// depends on it.
constexpr std::array kCudaShapes = {Shape{16384, 8192}, Shape{5120, 5120}};
constexpr std::array kSmallShapes = {Shape{4096, 4096}};  // on a GPU of at most 2 GiB, too
constexpr std::array kCudaEncodedShapes = {Shape{8192, 8192}, Shape{5120, 5120}};
constexpr std::array kCpuEncodedShapes = {Shape{2048, 2048}};

// The first rows beyond a power of two cost one more tile of rows: prompts of such a length beside decode
// rows.
constexpr std::array kCudaRows = {1,   2,   4,   8,   16,   32,   64,   96,   128, 192,
                                  256, 264, 512, 520, 1024, 1032, 2048, 4096, 8192};
constexpr std::array kCpuRows = {1, 2, 4, 8, 16, 32, 64, 128, 256};
/// Zeros of the sparse formats' matrix.
constexpr unsigned kNonzeroOfTen = 2;

/// Memory of the GPU tier: weights in front, then x, y and scratch.
class Products {
 public:
  Products(Rig& rig, Shape shape, std::int64_t max_rows)
      : rig_(rig), shape_(shape), dtype_(rig.activation_dtype()) {
    const std::int64_t act = dtype_bytes(dtype_);
    const std::int64_t x_bytes = align_up(max_rows * shape.in * act, 4_KiB);
    const std::int64_t y_bytes = align_up(max_rows * shape.out * act, 4_KiB);
    const auto total = static_cast<std::int64_t>(rig.gpu.size());
    y_ = rig.gpu.data() + total - y_bytes;
    x_ = y_ - x_bytes;
    weight_bytes_ = x_ - rig.gpu.data();
    // What is random as fp16 is no fp32 that a model has; the time of zeros is the same on a CPU.
    if (!rig.is_cuda()) std::memset(x_, 0, static_cast<std::size_t>(x_bytes));
  }

  /// How many weights of `stored_bytes` lie one after the other, each from a multiple of 4 KiB on, beside
  /// what the products take.
  std::int64_t room_for(WeightFormat format, std::int64_t stored_bytes) const {
    constexpr std::int64_t kMost = 8;
    return std::min(kMost, (weight_bytes_ - scratch_bytes(format)) / align_up(stored_bytes, 4_KiB));
  }

  /// Operations a second over `matrices` weights in turn, several so that none is still in a cache; 0 if the
  /// stream cannot.
  Measured rate(WeightFormat format, std::int64_t stored_bytes, std::int64_t matrices, std::int64_t rows) {
    const std::int64_t stride = align_up(stored_bytes, 4_KiB);
    if (matrices < 1) return {};
    std::byte* scratch = rig_.gpu.data() + weight_bytes_ - scratch_bytes(format);
    const auto args = [&](std::int64_t i) {
      return kernels::LinearArgs{
          .x = {x_, dtype_, rows, shape_.in, shape_.in},
          .weight = {format,
                     {rig_.gpu.data() + i * stride, static_cast<std::size_t>(stored_bytes)},
                     shape_.out,
                     shape_.in},
          .y = {y_, dtype_, rows, shape_.out, shape_.out},
          .scratch = {scratch, static_cast<std::size_t>(scratch_bytes(format))}};
    };
    if (!kernels::why_unsupported(args(0), rig_.device->kind()).empty()) return {};
    const std::int64_t products = rig_.is_cuda() ? std::max<std::int64_t>(matrices, 4) : matrices;
    return rig_.measure([&] {
      const double sec = rig_.seconds(*rig_.compute, [&] {
        for (std::int64_t i = 0; i < products; ++i) kernels::linear(args(i % matrices), *rig_.compute);
      });
      return 2.0 * static_cast<double>(products * rows * shape_.out * shape_.in) / sec;
    });
  }

 private:
  std::int64_t scratch_bytes(WeightFormat format) const {
    const kernels::DeviceKind device =
        rig_.is_cuda() ? kernels::DeviceKind::kCuda : kernels::DeviceKind::kCpu;
    return align_up(kernels::expansion_bytes(format, shape_.out, shape_.in, device), 4_KiB);
  }

  Rig& rig_;
  Shape shape_;
  DType dtype_;
  std::byte *x_ = nullptr, *y_ = nullptr;
  std::int64_t weight_bytes_ = 0;
};

void measure_dense(Rig& rig, Shape shape, policy::HardwareProfile& profile) {
  const auto measure_at = [&](auto rows_list) {
    Products products(rig, shape, rows_list.back());
    const std::int64_t bytes = shape.out * shape.in * 2;
    const std::int64_t matrices = products.room_for(WeightFormat::kDenseF16, bytes);
    for (const int rows : rows_list) {
      const Measured rate = products.rate(WeightFormat::kDenseF16, bytes, matrices, rows);
      if (rate.median == 0) continue;
      profile.gpu.products.push_back({Encoding::kDense, policy::ProductKernel::kFused,
                                      static_cast<double>(rows), rate.median / 1e12, rate.spread_percent,
                                      shape.million_weights()});
    }
  };
  rig.is_cuda() ? measure_at(kCudaRows) : measure_at(kCpuRows);
}

/// The other formats at a few rows. Which kernels `linear` takes depends on the size, too
/// (kernels/ops/linear_paths_measured.cc); on a CPU encoding a large one takes longer than measuring.
void measure_encoded(Rig& rig, Shape shape, policy::HardwareProfile& profile) {
  std::vector<std::uint16_t> dense(static_cast<std::size_t>(shape.out * shape.in));
  const auto* random = reinterpret_cast<const std::uint16_t*>(rig.host.data());
  std::uint32_t state = 1;
  for (std::size_t i = 0; i < dense.size(); ++i) {
    state = state * 1664525 + 1013904223;
    dense[i] = (state >> 16) % 10 < kNonzeroOfTen ? random[i % (rig.host.size() / 2)] : std::uint16_t{0};
  }
  TensorSpec tensor{.name = "profile", .rows = shape.out, .cols = shape.in};
  for (const Encoding encoding : all_encodings()) {
    if (encoding == Encoding::kDense) continue;
    const WeightFormat format{encoding, DType::kF16};
    const std::vector<std::byte> encoded = kernels::encode_matrix(tensor, format, dense);
    const auto bytes = static_cast<std::int64_t>(encoded.size());
    const std::vector<int> all_rows =
        rig.is_cuda() ? std::vector{1, 16, 32, 64, 128, 256, 2048} : std::vector{1, 16, 128};
    Products products(rig, shape, all_rows.back());
    const std::int64_t matrices = rig.is_cuda() ? products.room_for(format, bytes) : 1;
    for (std::int64_t i = 0; i < matrices; ++i)
      rig.up->copy(rig.gpu.data() + i * align_up(bytes, 4_KiB), encoded.data(), bytes);
    rig.up->synchronize();
    for (const int rows : all_rows) {
      const Measured rate = products.rate(format, bytes, matrices, rows);
      if (rate.median == 0) continue;
      profile.gpu.products.push_back({encoding, policy::ProductKernel::kFused, static_cast<double>(rows),
                                      rate.median / 1e12, rate.spread_percent, shape.million_weights()});
    }
  }
}

void measure_attention(Rig& rig, policy::HardwareProfile& profile) {
  const DType dtype = rig.activation_dtype();
  const auto pages = rig.gpu.first(std::min<std::size_t>(rig.gpu.size() / 2, std::size_t{1} << 30));
  std::byte* q = rig.gpu.data() + rig.gpu.size() / 2;
  const KvLayout layout{32, 128, KvFormat::kF16};
  const AttentionBatch decode({.pages = pages, .layout = layout, .positions = 512});
  const std::int64_t decode_bytes = decode.num_rows() * 32 * 128 * dtype_bytes(dtype);
  const Measured by_bytes = rig.measure([&] {
    return decode.kv_bytes() / rig.seconds(*rig.compute, [&] {
      decode.run(q, q + align_up(decode_bytes, 4_KiB), dtype, *rig.compute);
    });
  });
  profile.gpu.attention_gb_per_sec = by_bytes.median / 1e9;
  const std::int64_t prompt = rig.is_cuda() ? 512 : 256;
  const AttentionBatch prefill({.pages = pages,
                                .layout = layout,
                                .positions = prompt,
                                .rows_each = prompt,
                                .max_sequences = rig.is_cuda() ? 16 : 1});
  const std::int64_t prefill_bytes = prefill.num_rows() * 32 * 128 * dtype_bytes(dtype);
  const Measured by_operations = rig.measure([&] {
    return prefill.causal_flops() / rig.seconds(*rig.compute, [&] {
      prefill.run(q, q + align_up(prefill_bytes, 4_KiB), dtype, *rig.compute);
    });
  });
  profile.gpu.attention_tflop_per_sec = by_operations.median / 1e12;
}

}  // namespace

void measure_gpu(Rig& rig, policy::HardwareProfile& profile) {
  const auto half = static_cast<std::int64_t>(rig.gpu.size() / 2) / 4096 * 4096;
  const Measured copy = rig.measure([&] {
    return 2 * static_cast<double>(half) /
           rig.seconds(*rig.compute, [&] { rig.compute->copy(rig.gpu.data(), rig.gpu.data() + half, half); });
  });
  profile.gpu.copy_gb_per_sec = copy.median / 1e9;
  profile.gpu.products.clear();
  const bool is_small = !rig.is_cuda() || rig.gpu.size() <= 2_GiB;
  const auto dense_shapes = is_small ? std::span<const Shape>(kSmallShapes) : kCudaShapes;
  for (const Shape& shape : dense_shapes) measure_dense(rig, shape, profile);
  measure_attention(rig, profile);
  const auto encoded_shapes = rig.is_cuda() ? std::span<const Shape>(kCudaEncodedShapes) : kCpuEncodedShapes;
  for (const Shape& shape : encoded_shapes) measure_encoded(rig, shape, profile);
}

}  // namespace sluice::apps
