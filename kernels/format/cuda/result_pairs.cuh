// Sums of a fragment, four of a lane: their parts are added up, and those of one row of W and two of x become
// those of two rows of W and one of x. For *.cu files only.
#pragma once

namespace sluice::kernels {

__device__ __forceinline__ void add_to(float4& sum, const float4& part) {
  sum.x += part.x;
  sum.y += part.y;
  sum.z += part.z;
  sum.w += part.w;
}

/// `first` and `second` are a lane's sums of one row of W. Lanes of an even row and of the next one, whose
/// numbers differ in bit kLaneBit, exchange: that of the even row gets both rows' first sums, the other both
/// second ones. By whole warps.
template <int kLaneBit = 4>
__device__ __forceinline__ float2 exchange_rows(bool is_odd, float first, float second) {
  const float other = __shfl_xor_sync(0xFFFFFFFFU, is_odd ? first : second, kLaneBit);
  return is_odd ? make_float2(other, second) : make_float2(first, other);
}

}  // namespace sluice::kernels
