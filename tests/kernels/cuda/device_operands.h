// What the CUDA operator tests share: the device or the reason to skip, and operands in its memory: rounded
// to 16 bits, with guard words around outputs, beside an image on the host that the oracles read.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/device/device.h"
#include "tests/kernels/kernel_support.h"

namespace sluice::kernels::testing {

/// A device with one stream and its workspace.
class CudaDeviceUnderTest {
 public:
  CudaDeviceUnderTest()
      : device_(make_cuda_device(0)),
        workspace_(device_->allocate(workspace_bytes(DeviceKind::kCuda))),
        stream_(device_->make_stream(StreamPriority::kBulk, workspace_.bytes)) {}
  Device& device() { return *device_; }
  Stream& stream() { return *stream_; }
  DeviceMemory put(std::span<const std::byte> bytes) {
    DeviceMemory memory =
        device_->allocate(std::max<std::int64_t>(16, static_cast<std::int64_t>(bytes.size())));
    stream_->copy(memory.bytes.data(), bytes.data(), static_cast<std::int64_t>(bytes.size()));
    stream_->synchronize();
    return memory;
  }
  void fetch(const DeviceMemory& memory, std::span<std::byte> to) {
    stream_->copy(to.data(), memory.bytes.data(), static_cast<std::int64_t>(to.size()));
    stream_->synchronize();
  }

 private:
  std::unique_ptr<Device> device_;
  DeviceMemory workspace_;
  std::unique_ptr<Stream> stream_;
};

/// Skips without a device.
class CudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_device_present()) GTEST_SKIP() << cuda_devices_text();
    cuda = std::make_unique<CudaDeviceUnderTest>();
  }
  Stream& stream() { return cuda->stream(); }
  std::unique_ptr<CudaDeviceUnderTest> cuda;
};

/// Elements of a trivial type in device memory.
template <class T>
class DeviceArray {
 public:
  DeviceArray(CudaDeviceUnderTest& cuda, std::span<const T> values)
      : cuda_(cuda), size_(values.size()), memory_(cuda.put(std::as_bytes(values))) {}
  std::span<T> get() const { return {reinterpret_cast<T*>(memory_.bytes.data()), size_}; }
  std::vector<T> fetch() const {
    std::vector<T> values(size_);
    cuda_.fetch(memory_, std::as_writable_bytes(std::span(values)));
    return values;
  }

 private:
  CudaDeviceUnderTest& cuda_;
  std::size_t size_;
  DeviceMemory memory_;
};

/// Device memory of random fp16 values within [-1, 1], of which 4 MiB repeat: cheap to make, and the values
/// move the multipliers, and so the clock.
inline DeviceMemory random_halves(CudaDeviceUnderTest& cuda, std::int64_t bytes) {
  constexpr std::int64_t kSeedBytes = std::int64_t{4} << 20;
  std::vector<std::uint16_t> seed(static_cast<std::size_t>(std::min(bytes, kSeedBytes) / 2));
  Random random(5);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (std::uint16_t& x : seed) x = to_half(uniform(random)).bits;
  DeviceMemory memory = cuda.device().allocate(bytes);
  std::byte* data = memory.bytes.data();
  std::int64_t filled = std::min(bytes, kSeedBytes);
  cuda.stream().copy(data, reinterpret_cast<const std::byte*>(seed.data()), filled);
  for (; filled < bytes; filled *= 2)
    cuda.stream().copy(data + filled, data, std::min(filled, bytes - filled));
  cuda.stream().synchronize();
  return memory;
}

/// A weight, vector or table of the host, on the device.
class DeviceWeight {
 public:
  DeviceWeight(CudaDeviceUnderTest& cuda, const DenseWeight& weight)
      : view_(weight.view()), vector_(weight.vector()), memory_(cuda.put(view_.data)) {
    view_.data = std::span<const std::byte>(memory_.bytes).first(view_.data.size());
    vector_.data = memory_.bytes.data();
  }
  const WeightView& view() const { return view_; }
  const ConstVectorView& vector() const { return vector_; }

 private:
  WeightView view_;
  ConstVectorView vector_;
  DeviceMemory memory_;
};

inline DType dtype_of(WeightFormat format) { return format.dtype; }

/// Half the distance between neighbours of 1 in `dtype`: what rounding to it may change, relatively; and
/// absolutely, near zero.
inline double rounding(DType dtype) {
  return dtype == DType::kF32 ? kFp32Rounding : dtype == DType::kF16 ? 0x1p-11 : 0x1p-8;
}
inline double smallest_rounding(DType dtype) { return dtype == DType::kF16 ? 0x1p-25 : 0; }

/// A matrix in device memory, guards between, before and after its rows, and its image on the host.
class DeviceMatrix {
 public:
  DeviceMatrix(CudaDeviceUnderTest& cuda, DType dtype, std::int64_t rows, std::int64_t cols,
               std::int64_t padding = 0)
      : DeviceMatrix(cuda, dtype, rows, cols, padding, nullptr) {}
  /// Values of `m`, rounded; its padding too, unless another is given.
  DeviceMatrix(CudaDeviceUnderTest& cuda, DType dtype, const GuardedMatrix& m)
      : DeviceMatrix(cuda, dtype, m, m.view().stride - m.cols()) {}
  DeviceMatrix(CudaDeviceUnderTest& cuda, DType dtype, const GuardedMatrix& m, std::int64_t padding)
      : DeviceMatrix(cuda, dtype, m.rows(), m.cols(), padding, &m) {}

  MatrixView view() { return {memory_.bytes.data() + offset(), dtype_, rows_, cols_, stride_}; }
  ConstMatrixView const_view() const {
    return {memory_.bytes.data() + offset(), dtype_, rows_, cols_, stride_};
  }
  MatrixView host_view() { return {image_.data() + offset(), dtype_, rows_, cols_, stride_}; }
  ConstMatrixView const_host_view() const {
    return {image_.data() + offset(), dtype_, rows_, cols_, stride_};
  }
  double at(std::int64_t r, std::int64_t c) const {
    return element(image_.data() + offset(), dtype_, r * stride_ + c);
  }
  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  DType dtype() const { return dtype_; }

  /// Brings the image up to date and expects its guards intact.
  void fetch() {
    cuda_.fetch(memory_, image_);
    const std::vector<std::byte> guard = encoded_guard();
    const auto bytes = static_cast<std::size_t>(dtype_bytes(dtype_));
    for (std::int64_t i = 0; i < elements(); ++i) {
      const std::int64_t place = i - kGuards;
      if (place >= 0 && place < rows_ * stride_ && place % stride_ < cols_) continue;
      ASSERT_EQ(std::memcmp(image_.data() + static_cast<std::size_t>(i) * bytes, guard.data(), bytes), 0)
          << "guard element " << place << " was overwritten";
    }
  }
  /// tolerance(e, i): of element i, row-major, before the rounding to this type.
  void expect_near(const std::vector<Expected>& expected,
                   const std::function<double(const Expected&, std::size_t)>& tolerance) const {
    ASSERT_EQ(static_cast<std::int64_t>(expected.size()), rows_ * cols_);
    for (std::int64_t r = 0; r < rows_; ++r) {
      for (std::int64_t c = 0; c < cols_; ++c) {
        const auto i = static_cast<std::size_t>(r * cols_ + c);
        const double allowed = tolerance(expected[i], i);
        const double rounded =
            rounding(dtype_) * (std::abs(expected[i].value) + allowed) + smallest_rounding(dtype_);
        ASSERT_LE(std::abs(at(r, c) - expected[i].value), allowed + rounded)
            << "row " << r << " column " << c << ": " << at(r, c) << " should be " << expected[i].value;
      }
    }
  }
  void expect_same_bits(const DeviceMatrix& other) const {
    const auto bytes = static_cast<std::size_t>(dtype_bytes(dtype_));
    for (std::int64_t r = 0; r < rows_; ++r) {
      for (std::int64_t c = 0; c < cols_; ++c) {
        const std::byte* a = image_.data() + offset() + static_cast<std::size_t>(r * stride_ + c) * bytes;
        const std::byte* b =
            other.image_.data() + other.offset() + static_cast<std::size_t>(r * other.stride_ + c) * bytes;
        ASSERT_EQ(std::memcmp(a, b, bytes), 0)
            << "row " << r << " column " << c << ": " << at(r, c) << ", " << other.at(r, c);
      }
    }
  }

 private:
  static constexpr std::int64_t kGuards = 64;  // a multiple of 16 bytes, so that rows may be aligned

  DeviceMatrix(CudaDeviceUnderTest& cuda, DType dtype, std::int64_t rows, std::int64_t cols,
               std::int64_t padding, const GuardedMatrix* values)
      : cuda_(cuda), dtype_(dtype), rows_(rows), cols_(cols), stride_(cols + padding) {
    const std::vector<std::byte> guard = encoded_guard();
    for (std::int64_t i = 0; i < elements(); ++i) image_.insert(image_.end(), guard.begin(), guard.end());
    for (std::int64_t r = 0; values != nullptr && r < rows; ++r) {
      for (std::int64_t c = 0; c < cols; ++c) store(r * stride_ + c, values->at(r, c));
    }
    memory_ = cuda.put(image_);
  }
  void store(std::int64_t place, float value) {
    std::byte* to = image_.data() + offset() + static_cast<std::size_t>(place * dtype_bytes(dtype_));
    if (dtype_ == DType::kF32) {
      std::memcpy(to, &value, sizeof(value));
    } else {
      const std::uint16_t bits = dtype_ == DType::kF16 ? to_half(value).bits : to_bfloat16(value).bits;
      std::memcpy(to, &bits, sizeof(bits));
    }
  }
  std::int64_t elements() const { return rows_ * stride_ + 2 * kGuards; }
  std::size_t offset() const { return static_cast<std::size_t>(kGuards * dtype_bytes(dtype_)); }
  /// A NaN in every type, so that reading it shows too.
  std::vector<std::byte> encoded_guard() const {
    constexpr std::uint32_t kGuard = 0x7FAD7FADU;
    std::vector<std::byte> bytes(static_cast<std::size_t>(dtype_bytes(dtype_)));
    std::memcpy(bytes.data(), &kGuard, bytes.size());
    return bytes;
  }

  CudaDeviceUnderTest& cuda_;
  DType dtype_;
  std::int64_t rows_, cols_, stride_;
  std::vector<std::byte> image_;
  DeviceMemory memory_;
};

}  // namespace sluice::kernels::testing
