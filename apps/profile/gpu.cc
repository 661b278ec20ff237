#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <vector>

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

// Two sizes: on a GPU a large model's MLP, and the attention's projections of a model of 13B parameters,
// whose tiles fill the multiprocessors badly; on a CPU what it can multiply in seconds, and the projections
// of a model of 125M, where few rows give the threads too little to do (at 8 rows 70 to 85 % of the larger
// one's rate).
constexpr std::array kCudaShapes = {Shape{16384, 8192}, Shape{5120, 5120}};
constexpr std::array kSmallCudaShapes = {Shape{4096, 4096}};  // a GPU of at most 2 GiB
constexpr std::array kCpuShapes = {Shape{4096, 4096}, Shape{768, 768}};
constexpr std::array kCudaEncodedShapes = {Shape{8192, 8192}, Shape{5120, 5120}};
constexpr std::array kCpuEncodedShapes = {Shape{2048, 2048}};

// The first rows beyond a power of two cost one more tile of rows: prompts of such a length beside decode
// rows.
constexpr std::array kCudaRows = {1,   2,   4,   8,   16,   32,   64,   96,   128, 192,
                                  256, 264, 512, 520, 1024, 1032, 2048, 4096, 8192};
constexpr std::array kCpuRows = {1, 2, 4, 8, 16, 32, 64, 128, 256};
constexpr std::array kCudaEncodedRows = {1, 16, 32, 64, 128, 256, 2048};
constexpr std::array kCpuEncodedRows = {1, 16, 128};
/// Zeros of the sparse formats' matrix.
constexpr unsigned kNonzeroOfTen = 2;

/// Memory of the GPU tier: weights in front, then x, y and scratch.
class Products {
  /// The matrices of a round where there is room: all on a GPU, the fewest on a CPU.
  static constexpr std::int64_t kMatrices = 8;

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
  /// what the products take: up to what no cache keeps.
  std::int64_t room_for(WeightFormat format, std::int64_t stored_bytes) const {
    constexpr std::int64_t kCpuBytes = 256_MiB;
    const std::int64_t wanted = rig_.is_cuda() ? kMatrices : std::max(kMatrices, kCpuBytes / stored_bytes);
    return std::min(wanted, (weight_bytes_ - scratch_bytes(format)) / align_up(stored_bytes, 4_KiB));
  }

  bool supported(WeightFormat format, std::int64_t stored_bytes, std::int64_t rows) const {
    return kernels::why_unsupported(args(format, stored_bytes, 0, rows), rig_.device->kind()).empty();
  }

  /// Operations a second over `matrices` weights in turn: on a GPU of four products at least, on a CPU of
  /// what it does in a while, beginning with matrix `next`, after which the next call begins.
  double rate(WeightFormat format, std::int64_t stored_bytes, std::int64_t matrices, std::int64_t rows,
              std::int64_t& next) const {
    // Long beside what wakes threads, short beside what another tenant of the machine takes.
    constexpr double kCpuSec = 0.025;
    const auto multiply = [&](std::int64_t matrix) {
      kernels::linear(args(format, stored_bytes, matrix, rows), *rig_.compute);
    };
    const double operations = 2.0 * static_cast<double>(rows * shape_.out * shape_.in);
    if (!rig_.is_cuda()) {
      return run_for(kCpuSec, [&] {
        multiply(next);
        next = (next + 1) % matrices;
        return operations;
      });
    }
    const std::int64_t products = std::max<std::int64_t>(matrices, 4);
    const double sec = rig_.seconds(*rig_.compute, [&] {
      for (std::int64_t i = 0; i < products; ++i) multiply(i % matrices);
    });
    return static_cast<double>(products) * operations / sec;
  }

  Shape shape() const { return shape_; }

 private:
  kernels::LinearArgs args(WeightFormat format, std::int64_t stored_bytes, std::int64_t matrix,
                           std::int64_t rows) const {
    std::byte* scratch = rig_.gpu.data() + weight_bytes_ - scratch_bytes(format);
    return {.x = {x_, dtype_, rows, shape_.in, shape_.in},
            .weight = {format,
                       {rig_.gpu.data() + matrix * align_up(stored_bytes, 4_KiB),
                        static_cast<std::size_t>(stored_bytes)},
                       shape_.out,
                       shape_.in},
            .y = {y_, dtype_, rows, shape_.out, shape_.out},
            .scratch = {scratch, static_cast<std::size_t>(scratch_bytes(format))}};
  }

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

/// Products to measure together.
class Comparison {
 public:
  explicit Comparison(Rig& rig) : rig_(rig) {}

  /// Each count of rows that the stream can multiply. `products` outlives this.
  void add(const Products& products, WeightFormat format, std::int64_t stored_bytes, std::int64_t matrices,
           std::span<const int> all_rows) {
    if (matrices < 1) return;
    for (const int rows : all_rows) {
      if (!products.supported(format, stored_bytes, rows)) continue;
      products_.push_back({.format = format.encoding,
                           .kernel = policy::ProductKernel::kFused,
                           .rows = static_cast<double>(rows),
                           .million_weights = products.shape().million_weights()});
      bodies_.emplace_back(
          [&products, format, stored_bytes, matrices, rows, next = std::int64_t{0}]() mutable {
            return products.rate(format, stored_bytes, matrices, rows, next);
          });
    }
  }

  void measure(int cpu_rounds, policy::HardwareProfile& profile) {
    std::vector<Measured> rates;
    if (rig_.is_cuda()) {  // not shared; row by row, as its clock depends on the products before
      for (const auto& body : bodies_) rates.push_back(rig_.measure(body));
    } else {
      rates = rig_.measure_in_turn(bodies_, cpu_rounds);
    }
    for (std::size_t i = 0; i < rates.size(); ++i) {
      products_[i].tflop_per_sec = rates[i].median / 1e12;
      products_[i].spread_percent = rates[i].spread_percent;
      profile.gpu.products.push_back(products_[i]);
    }
  }

 private:
  Rig& rig_;
  std::vector<policy::ProductRate> products_;
  std::vector<std::function<double()>> bodies_;
};

void measure_dense(Rig& rig, std::span<const Shape> shapes, policy::HardwareProfile& profile) {
  const auto rows = rig.is_cuda() ? std::span<const int>(kCudaRows) : kCpuRows;
  std::vector<Products> products;
  for (const Shape& shape : shapes) products.emplace_back(rig, shape, rows.back());
  Comparison comparison(rig);
  for (const Products& of_shape : products) {
    const std::int64_t bytes = of_shape.shape().out * of_shape.shape().in * 2;
    comparison.add(of_shape, WeightFormat::kDenseF16, bytes,
                   of_shape.room_for(WeightFormat::kDenseF16, bytes), rows);
  }
  // A CPU has other tenants, who come and go in seconds and take more than what two counts of rows differ by.
  constexpr int kCpuRounds = 3;  // for each of the options'
  comparison.measure(kCpuRounds * rig.options.rounds, profile);
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
    const auto rows = rig.is_cuda() ? std::span<const int>(kCudaEncodedRows) : kCpuEncodedRows;
    const Products products(rig, shape, rows.back());
    const std::int64_t matrices = rig.is_cuda() ? products.room_for(format, bytes) : 1;
    for (std::int64_t i = 0; i < matrices; ++i)
      rig.up->copy(rig.gpu.data() + i * align_up(bytes, 4_KiB), encoded.data(), bytes);
    rig.up->synchronize();
    Comparison comparison(rig);
    comparison.add(products, format, bytes, matrices, rows);
    comparison.measure(rig.options.rounds, profile);
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
  const auto dense_shapes = !rig.is_cuda()            ? std::span<const Shape>(kCpuShapes)
                            : rig.gpu.size() <= 2_GiB ? std::span<const Shape>(kSmallCudaShapes)
                                                      : std::span<const Shape>(kCudaShapes);
  measure_dense(rig, dense_shapes, profile);
  measure_attention(rig, profile);
  const auto encoded_shapes = rig.is_cuda() ? std::span<const Shape>(kCudaEncodedShapes) : kCpuEncodedShapes;
  for (const Shape& shape : encoded_shapes) measure_encoded(rig, shape, profile);
}

}  // namespace sluice::apps
