// What the operator tests share: guarded outputs, random operands, forced SIMD targets.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/matrix.h"
#include "kernels/device/cpu/simd.h"
#include "kernels/device/cpu/thread_pool.h"
#include "kernels/device/stream.h"
#include "kernels/format/weight_view.h"
#include "kernels/ops/reference.h"

namespace sluice::kernels::testing {

/// Restores the best SIMD target when it goes.
class ForcedTarget {
 public:
  explicit ForcedTarget(const std::string& name) { force_simd_target(name); }
  ~ForcedTarget() { force_simd_target({}); }
  ForcedTarget(const ForcedTarget&) = delete;
  ForcedTarget& operator=(const ForcedTarget&) = delete;
};

/// Runs `body` once per SIMD target of this machine.
inline void for_each_target(const std::function<void()>& body) {
  for (const std::string& name : simd_targets()) {
    SCOPED_TRACE("SIMD target " + name);
    const ForcedTarget forced(name);
    body();
  }
}

using Random = std::mt19937_64;

inline float normal(Random& random) { return std::normal_distribution<float>()(random); }
inline std::int64_t between(Random& random, std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(random);
}

/// An fp32 matrix whose rows are `padding` elements apart, with guard words between, before and after the
/// rows.
class GuardedMatrix {
 public:
  GuardedMatrix(std::int64_t rows, std::int64_t cols, std::int64_t padding = 0)
      : rows_(rows), cols_(cols), stride_(cols + padding) {
    data_.assign(static_cast<std::size_t>(rows * stride_ + 2 * kGuards), guard());
  }
  static GuardedMatrix random(std::int64_t rows, std::int64_t cols, std::int64_t padding, Random& random) {
    GuardedMatrix m(rows, cols, padding);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < cols; ++c) m.at(r, c) = normal(random);
    }
    return m;
  }

  float& at(std::int64_t r, std::int64_t c) {
    return data_[static_cast<std::size_t>(kGuards + r * stride_ + c)];
  }
  float at(std::int64_t r, std::int64_t c) const {
    return data_[static_cast<std::size_t>(kGuards + r * stride_ + c)];
  }
  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  MatrixView view() {
    return {reinterpret_cast<std::byte*>(data_.data() + kGuards), DType::kF32, rows_, cols_, stride_};
  }
  ConstMatrixView view() const {
    return {reinterpret_cast<const std::byte*>(data_.data() + kGuards), DType::kF32, rows_, cols_, stride_};
  }
  /// Everything, guards included.
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(data_)); }

  void expect_guards_intact() const {
    const float expected = guard();
    for (std::size_t i = 0; i < data_.size(); ++i) {
      const std::int64_t at = static_cast<std::int64_t>(i) - kGuards;
      if (at >= 0 && at < rows_ * stride_ && at % stride_ < cols_) continue;
      ASSERT_EQ(std::bit_cast<std::uint32_t>(data_[i]), std::bit_cast<std::uint32_t>(expected))
          << "guard word " << at << " was overwritten";
    }
  }

  void expect_near(const std::vector<Expected>& expected) const {
    ASSERT_EQ(static_cast<std::int64_t>(expected.size()), rows_ * cols_);
    for (std::int64_t r = 0; r < rows_; ++r) {
      for (std::int64_t c = 0; c < cols_; ++c) {
        const Expected& e = expected[static_cast<std::size_t>(r * cols_ + c)];
        ASSERT_LE(std::abs(static_cast<double>(at(r, c)) - e.value), e.tolerance)
            << "row " << r << " column " << c << ": " << at(r, c) << " should be " << e.value;
      }
    }
  }

  void expect_same_bits(const GuardedMatrix& other) const {
    ASSERT_EQ(rows_, other.rows_);
    ASSERT_EQ(cols_, other.cols_);
    for (std::int64_t r = 0; r < rows_; ++r) {
      for (std::int64_t c = 0; c < cols_; ++c) {
        const float a = at(r, c);
        const float b = other.at(r, c);
        ASSERT_EQ(std::bit_cast<std::uint32_t>(a), std::bit_cast<std::uint32_t>(b))
            << "row " << r << " column " << c << ": " << a << ", " << b;
      }
    }
  }

 private:
  static constexpr std::int64_t kGuards = 64;
  static float guard() { return std::bit_cast<float>(0x7FC0DEADU); }  // a NaN, so that reading it shows too

  std::int64_t rows_, cols_, stride_;
  std::vector<float> data_;
};

/// A dense weight, vector or table of normally distributed values.
class DenseWeight {
 public:
  DenseWeight(WeightFormat format, std::int64_t rows, std::int64_t cols, Random& random, float sigma = 1.0F)
      : format_(format), rows_(rows), cols_(cols) {
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      const float value = sigma * normal(random);
      bits_.push_back(format == WeightFormat::kDenseF16 ? to_half(value).bits : to_bfloat16(value).bits);
    }
  }
  WeightView view() const { return {format_, std::as_bytes(std::span(bits_)), rows_, cols_}; }
  ConstVectorView vector() const {
    return {reinterpret_cast<const std::byte*>(bits_.data()),
            format_ == WeightFormat::kDenseF16 ? DType::kF16 : DType::kBF16, rows_ * cols_};
  }

 private:
  WeightFormat format_;
  std::int64_t rows_, cols_;
  std::vector<std::uint16_t> bits_;
};

/// A memory tier for tests of "every operand lies in the arena": copies of operands, in one allocation.
class OperandArena {
 public:
  ConstMatrixView put(const ConstMatrixView& m) {
    return {put(m.data, ((m.rows - 1) * m.stride + m.cols) * dtype_bytes(m.dtype)), m.dtype, m.rows, m.cols,
            m.stride};
  }
  MatrixView put(const MatrixView& m) {
    const ConstMatrixView copy = put(as_const(m));
    return {const_cast<std::byte*>(copy.data), m.dtype, m.rows, m.cols, m.stride};
  }
  ConstVectorView put(const ConstVectorView& v) {
    return {put(v.data, v.size * dtype_bytes(v.dtype)), v.dtype, v.size};
  }
  WeightView put(const WeightView& w) {
    const auto size = static_cast<std::int64_t>(w.data.size());
    return {w.format, {put(w.data.data(), size), w.data.size()}, w.rows, w.cols};
  }
  std::byte* put(const std::byte* data, std::int64_t size) {
    std::byte* to = storage_.data() + used_;
    used_ += (size + 63) / 64 * 64;
    EXPECT_LE(used_, static_cast<std::int64_t>(storage_.size()));
    std::memcpy(to, data, static_cast<std::size_t>(size));
    return to;
  }
  std::span<const std::byte> bytes() const { return storage_; }

 private:
  std::vector<std::byte> storage_ = std::vector<std::byte>(1 << 20);
  std::int64_t used_ = 0;
};

}  // namespace sluice::kernels::testing
