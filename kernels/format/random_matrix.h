// Synthetic matrices that are sparse or in another format than dense: made row by row, so that any thread may
// make any part, directly in their stored format. Values are those of random_weights.h; which of them are
// zero depends on the matrix's name without its layer and on (seed, shape, sparsity), so sizes repeat from
// layer to layer and values do not. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/model/spec.h"
#include "kernels/format/format.h"

namespace sluice::kernels {

class ThreadPool;

struct RandomMatrix {
  const TensorSpec& tensor;
  const ModelSpec& spec;
  WeightFormat format;
  double sparsity = 0;  ///< each element is zero with this probability
  std::uint64_t seed = 0;
};

/// What the mask is drawn by: matrices of one name have zeros in the same places.
std::string mask_name(const RandomMatrix& matrix);
/// The sizes of the matrix's tiles, counted in parallel; empty for a format of fixed size.
TileSizes random_tiles(const RandomMatrix& matrix, ThreadPool& pool);
std::int64_t bytes_of_tiles(const TileSizes& tiles);
/// Fills `out` with the stored bytes. `tiles` are those of random_tiles.
void random_matrix(const RandomMatrix& matrix, const TileSizes& tiles, ThreadPool& pool,
                   std::span<std::byte> out);

}  // namespace sluice::kernels
