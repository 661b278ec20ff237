#include "kernels/ops/reference.h"

#include <cstring>

#include "core/error.h"

namespace sluice::kernels {
namespace {

template <class T>
T read(const std::byte* data, std::int64_t i) {
  T value;
  std::memcpy(&value, data + i * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
  return value;
}

}  // namespace

double element(const std::byte* data, DType dtype, std::int64_t i) {
  switch (dtype) {
    case DType::kF32:
      return read<float>(data, i);
    case DType::kF16:
      return to_float(read<Half>(data, i));
    case DType::kBF16:
      return to_float(read<BFloat16>(data, i));
    default:
      throw Error(Code::kUnsupported, fmt::format("no reference for {}", dtype_name(dtype)));
  }
}

}  // namespace sluice::kernels
