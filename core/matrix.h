// Borrowed two-dimensional views. A view never owns; whoever made it keeps the memory alive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/dtype.h"

namespace sluice {

/// Row-major [rows, cols] elements of T; row r starts at data + r * stride (stride in elements).
template <class T>
struct Matrix {
  T* data = nullptr;
  std::int64_t rows = 0, cols = 0, stride = 0;

  std::span<T> row(std::int64_t r) const { return {data + r * stride, static_cast<std::size_t>(cols)}; }
  T& operator()(std::int64_t r, std::int64_t c) const { return data[r * stride + c]; }
  Matrix slice_rows(std::int64_t first, std::int64_t count) const {
    return {data + first * stride, count, cols, stride};
  }
  Matrix slice_cols(std::int64_t first, std::int64_t count) const {
    return {data + first, rows, count, stride};
  }
};

/// A matrix whose element type is known at run time. Strides are in elements.
template <class Byte>
struct BasicMatrixView {
  Byte* data = nullptr;
  DType dtype = DType::kF32;
  std::int64_t rows = 0, cols = 0, stride = 0;

  BasicMatrixView slice_rows(std::int64_t first, std::int64_t count) const {
    return {data + first * stride * dtype_bytes(dtype), dtype, count, cols, stride};
  }
  BasicMatrixView slice_cols(std::int64_t first, std::int64_t count) const {
    return {data + first * dtype_bytes(dtype), dtype, rows, count, stride};
  }
};
using MatrixView = BasicMatrixView<std::byte>;
using ConstMatrixView = BasicMatrixView<const std::byte>;
inline ConstMatrixView as_const(const MatrixView& m) { return {m.data, m.dtype, m.rows, m.cols, m.stride}; }

/// A vector whose element type is known at run time; empty when `data` is null.
struct ConstVectorView {
  const std::byte* data = nullptr;
  DType dtype = DType::kF32;
  std::int64_t size = 0;
  explicit operator bool() const { return data != nullptr; }
};

}  // namespace sluice
