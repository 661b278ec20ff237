// Attention batches in a CUDA device's memory, with guard words between everything.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "core/units.h"
#include "kernels/device/device.h"
#include "tests/kernels/kv_pages.h"

namespace sluice::kernels::testing {

/// A test of the CUDA device: skipped, with the reason, where there is none.
class OnCudaDevice : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_device_present()) GTEST_SKIP() << cuda_devices_text();
    device = make_cuda_device(0);
    workspace = device->allocate(workspace_bytes(DeviceKind::kCuda));
    stream = device->make_stream(StreamPriority::kBulk, workspace.bytes);
  }

  std::unique_ptr<Device> device;
  DeviceMemory workspace;
  std::unique_ptr<Stream> stream;
};

/// A matrix of fp16 or bf16 in device memory, with guard words between, before and after its rows.
class DeviceMatrix {
 public:
  /// The values of `host`, rounded.
  DeviceMatrix(Device& device, Stream& stream, DType dtype, const GuardedMatrix& host, std::int64_t padding)
      : DeviceMatrix(device, stream, dtype, host.rows(), host.cols(), padding) {
    for (std::int64_t r = 0; r < rows_; ++r) {
      for (std::int64_t c = 0; c < cols_; ++c) bits_[place(r, c)] = round(host.at(r, c));
    }
    upload(stream);
  }
  DeviceMatrix(Device& device, Stream& stream, DType dtype, std::int64_t rows, std::int64_t cols,
               std::int64_t padding)
      : dtype_(dtype), rows_(rows), cols_(cols), stride_(cols + padding) {
    bits_.assign(static_cast<std::size_t>(rows * stride_ + 2 * kGuards), kGuard);
    memory_ = device.allocate(std::ssize(bits_) * 2);
    upload(stream);
  }

  ConstMatrixView view() const { return {data(), dtype_, rows_, cols_, stride_}; }
  MatrixView output() { return {data(), dtype_, rows_, cols_, stride_}; }

  /// After the stream's work, what the device has; fails if a guard word was overwritten.
  void fetch(Stream& stream) {
    stream.copy(reinterpret_cast<std::byte*>(bits_.data()), memory_.bytes.data(), std::ssize(bits_) * 2);
    stream.synchronize();
    for (std::int64_t i = 0; i < std::ssize(bits_); ++i) {
      const std::int64_t at = i - kGuards;
      if (at >= 0 && at < rows_ * stride_ && at % stride_ < cols_) continue;
      ASSERT_EQ(bits_[static_cast<std::size_t>(i)], kGuard) << "guard word " << at << " was overwritten";
    }
  }
  std::uint16_t bits(std::int64_t r, std::int64_t c) const { return bits_[place(r, c)]; }
  float at(std::int64_t r, std::int64_t c) const {
    return dtype_ == DType::kF16 ? to_float(Half{bits(r, c)}) : to_float(BFloat16{bits(r, c)});
  }
  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  DType dtype() const { return dtype_; }

 private:
  static constexpr std::int64_t kGuards = 64;  // keeps rows aligned
  static constexpr std::uint16_t kGuard = 0x7DEA;

  std::uint16_t round(float x) const { return dtype_ == DType::kF16 ? to_half(x).bits : to_bfloat16(x).bits; }
  std::size_t place(std::int64_t r, std::int64_t c) const {
    return static_cast<std::size_t>(kGuards + r * stride_ + c);
  }
  std::byte* data() const { return memory_.bytes.data() + kGuards * 2; }
  void upload(Stream& stream) {
    stream.copy(memory_.bytes.data(), reinterpret_cast<const std::byte*>(bits_.data()),
                std::ssize(bits_) * 2);
    stream.synchronize();
  }

  DType dtype_;
  std::int64_t rows_, cols_, stride_;
  std::vector<std::uint16_t> bits_;
  DeviceMemory memory_;
};

/// The pages of some segments, copied into one allocation of NaNs, and the segments that name the copies.
class DevicePages {
 public:
  DevicePages(Device& device, Stream& stream, const KvLayout& layout, const std::vector<PagedSegment>& host)
      : layout_(layout), segments(host) {
    std::int64_t num_pages = 0;
    for (const PagedSegment& s : host) num_pages += pages_of(s);
    image_.assign(static_cast<std::size_t>((num_pages + 1) * stride()), std::byte{0xFF});
    memory_ = device.allocate(std::ssize(image_));
    std::int64_t at = stride() - kGuard;  // a guard before the first page too
    for (PagedSegment& s : segments) {
      std::vector<const std::byte*>& table = tables_.emplace_back();
      for (std::int64_t p = 0; p < pages_of(s); ++p, at += stride()) {
        std::memcpy(image_.data() + at, s.pages[p], static_cast<std::size_t>(layout.page_bytes()));
        table.push_back(memory_.bytes.data() + at);
      }
      s.pages = table.data();
    }
    stream.copy(memory_.bytes.data(), image_.data(), std::ssize(image_));
    stream.synchronize();
  }

  /// The page tables are dead once an operator returns, so tests scribble over them.
  void scribble_tables() {
    for (std::vector<const std::byte*>& table : tables_) std::fill(table.begin(), table.end(), nullptr);
  }

  /// Fails unless the device's pages are as `host` has them, guards included.
  void expect_equal(Stream& stream, const std::vector<PagedSegment>& host) {
    std::int64_t at = stride() - kGuard;
    for (const PagedSegment& s : host) {
      for (std::int64_t p = 0; p < pages_of(s); ++p, at += stride()) {
        std::memcpy(image_.data() + at, s.pages[p], static_cast<std::size_t>(layout_.page_bytes()));
      }
    }
    std::vector<std::byte> now(image_.size());
    stream.copy(now.data(), memory_.bytes.data(), std::ssize(now));
    stream.synchronize();
    const auto [wanted, found] = std::mismatch(image_.begin(), image_.end(), now.begin());
    ASSERT_TRUE(wanted == image_.end()) << "byte " << wanted - image_.begin() << " of the pages is "
                                        << static_cast<int>(*found) << ", not " << static_cast<int>(*wanted);
  }

 private:
  static constexpr std::int64_t kGuard = 256;
  static std::int64_t pages_of(const PagedSegment& s) {
    return kv_pages(std::max<std::int64_t>(s.first_kv + s.num_rows, s.full_prefix));
  }
  std::int64_t stride() const { return align_up(layout_.page_bytes(), kGuard) + kGuard; }

  KvLayout layout_;
  std::vector<std::byte> image_;
  DeviceMemory memory_;
  std::deque<std::vector<const std::byte*>> tables_;

 public:
  std::vector<PagedSegment> segments;
};

/// Rounds what a batch queries to the activation type, so that the reference sees what the device sees.
inline void round_to(DType dtype, GuardedMatrix& m) {
  for (std::int64_t r = 0; r < m.rows(); ++r) {
    for (std::int64_t c = 0; c < m.cols(); ++c) {
      m.at(r, c) = dtype == DType::kF16 ? to_float(to_half(m.at(r, c))) : to_float(to_bfloat16(m.at(r, c)));
    }
  }
}

}  // namespace sluice::kernels::testing
