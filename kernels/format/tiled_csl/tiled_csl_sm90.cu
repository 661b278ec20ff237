// tiled_csl on sm_90a. A unit is two tiles, one below the other; warps 0 and 1 of an extractor group unpack
// the upper one, warps 2 and 3 the lower one, 128 words at a time.
#include "kernels/format/cuda/sm90_launch.cuh"
#include "kernels/format/tiled_csl/tiled_csl_sm90.h"

namespace sluice::kernels {
namespace {

using namespace sm90;

struct TiledCsl {
  static constexpr Encoding kEncoding = Encoding::kTiledCsl;
  /// What a unit costs beside its bytes, in units of 16 of them: about the time that an empty one takes.
  static constexpr unsigned kUnitCost = 96;

  /// The tiles of a unit; the lower one may be missing.
  struct Pair {
    int upper, lower, lower_row;  ///< lower_row: the first tile of the lower one's row
  };
  __device__ static Pair pair_of(const StoredTiles& stored, int unit) {
    const int per_row = stored.tiles_per_row;
    const int row = unit / per_row;
    const int upper = unit + row * per_row;  // row 2 row of tiles
    return {min(upper, stored.num_tiles), min(upper + per_row, stored.num_tiles),
            min((2 * row + 1) * per_row, stored.num_tiles)};
  }
  __device__ static std::uint64_t cost_before(const StoredTiles& stored, int unit) {
    const Pair pair = pair_of(stored, unit);
    const std::uint32_t* table = stored.table;
    return std::uint64_t{table[pair.upper]} + (table[pair.lower] - table[pair.lower_row]) +
           std::uint64_t{kUnitCost} * static_cast<unsigned>(unit);
  }
  __device__ static UnitSource locate(const StoredTiles& stored, int unit) {
    const Pair pair = pair_of(stored, unit);
    const std::uint32_t upper = stored.table[pair.upper], lower = stored.table[pair.lower];
    const std::uint32_t lower_end = stored.table[min(pair.lower + 1, stored.num_tiles)];
    return {{upper, lower}, {stored.table[pair.upper + 1] - upper, lower_end - lower}};
  }

  class Extractor {
   public:
    __device__ Extractor(int thread, SharedAddress buffer)
        : thread_(thread),
          lane_(thread % 64),
          part_(thread / 64),
          buffer_(buffer),
          tile_(buffer + part_ * (kUnitBytes / 2)) {}

    /// Makes the buffer zero: where values were stored, if that is known, else everywhere.
    __device__ void clear() {
      if (dirty_) {
#pragma unroll
        for (int i = 0; i < kUnitBytes / 16 / 128; ++i)
          store_shared_16(buffer_ + (i * 128 + thread_) * 16, make_uint4(0, 0, 0, 0));
        return;
      }
#pragma unroll
      for (int i = 0; i < kKept; ++i) {
        if (i < kept_) {
          store_half_word(tile_ + (kept_places_[i].x & 0xFFFFU), 0);
          store_half_word(tile_ + (kept_places_[i].x >> 16), 0);
          store_half_word(tile_ + (kept_places_[i].y & 0xFFFFU), 0);
          store_half_word(tile_ + (kept_places_[i].y >> 16), 0);
        }
      }
    }

    __device__ void unpack(SharedAddress words, const uint2& bytes) {
      const int vectors = static_cast<int>(part_ == 0 ? bytes.x : bytes.y) / 16;
      if (part_ == 1) words += bytes.x;
      const int count = vectors > lane_ ? (vectors - lane_ + 63) / 64 : 0;
      words += lane_ * 16;
#pragma unroll
      for (int i = 0; i < kKept; ++i) {
        if (i < count) {
          const uint4 four = load_shared_16(words + i * 1024);
          scatter(four);
          kept_places_[i] = {__byte_perm(four.x, four.y, 0x7632), __byte_perm(four.z, four.w, 0x7632)};
        }
      }
      for (int i = kKept; i < count; ++i) scatter(load_shared_16(words + i * 1024));
      // All threads of the group clear alike.
      dirty_ = static_cast<int>(max(bytes.x, bytes.y)) > kKept * 1024;
      kept_ = count;
    }

   private:
    /// Vectors of four words that a lane remembers. Tiles of more are cleared as a whole, which is as fast.
    static constexpr int kKept = 10;

    __device__ void scatter(const uint4& four) {
      store_half_word(tile_ + (four.x >> 16), four.x);
      store_half_word(tile_ + (four.y >> 16), four.y);
      store_half_word(tile_ + (four.z >> 16), four.z);
      store_half_word(tile_ + (four.w >> 16), four.w);
    }

    const int thread_, lane_, part_;
    const SharedAddress buffer_, tile_;
    bool dirty_ = true;
    int kept_ = 0;
    uint2 kept_places_[kKept];
  };
};

}  // namespace

const FusedKernel kTiledCslSm90 = fused_kernel<TiledCsl>("tiled_csl_sm90");

}  // namespace sluice::kernels
