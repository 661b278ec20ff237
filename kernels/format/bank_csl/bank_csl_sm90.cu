// bank_csl on sm_90a. A unit is a tile. Warp q of an extractor group takes half of the slots (q / 2) of half
// of the lists, one list a lane: list 2 l + (q mod 2), with the two exchanged in lanes of odd l / 4, so that
// the 16-byte loads of values have no bank conflicts. Lane l stores to bank l only.
#include "kernels/format/bank_csl/bank_csl_sm90.h"
#include "kernels/format/cuda/sm90_launch.cuh"

namespace sluice::kernels {
namespace {

using namespace sm90;

struct BankCsl {
  static constexpr Encoding kEncoding = Encoding::kBankCsl;
  /// What a unit costs beside its bytes, in units of 16 of them: about the time that an empty one takes.
  static constexpr unsigned kUnitCost = 64;

  __device__ static std::uint64_t cost_before(const StoredTiles& stored, int unit) {
    return stored.table[unit] + std::uint64_t{kUnitCost} * static_cast<unsigned>(unit);
  }
  __device__ static UnitSource locate(const StoredTiles& stored, int unit) {
    const std::uint32_t from = stored.table[unit];
    return {{from, 0}, {stored.table[unit + 1] - from, 0}};
  }

  class Extractor {
   public:
    __device__ Extractor(int thread, SharedAddress buffer)
        : thread_(thread),
          chunk_(thread / 64),
          list_(2 * (thread % 32) + ((thread / 32 % 2) ^ (thread / 4 % 2))),
          buffer_(buffer) {}

    /// Makes the buffer zero: where values were stored, if that is known, else everywhere.
    __device__ void clear() {
      if (dirty_) {
#pragma unroll
        for (int i = 0; i < kUnitBytes / 16 / 128; ++i)
          store_shared_16(buffer_ + (i * 128 + thread_) * 16, make_uint4(0, 0, 0, 0));
        return;
      }
      const uint4 zeros = {0, 0, 0, 0};
#pragma unroll
      for (int i = 0; i < kKept; ++i) {
        if (i < kept_) scatter(kept_rows_[i], zeros);
      }
      if (kept_words_) {
        store_half_word(buffer_ + (kept_places_.x & 0xFFFFU), 0);
        store_half_word(buffer_ + (kept_places_.x >> 16), 0);
        store_half_word(buffer_ + (kept_places_.y & 0xFFFFU), 0);
        store_half_word(buffer_ + (kept_places_.y >> 16), 0);
      }
    }

    __device__ void unpack(SharedAddress tile, const uint2&) {
      // Header: kind, slots, words of overflow (FORMAT.md).
      const uint2 header = load_shared_8(tile);
      const bool is_delta = (header.x & 0xFFU) == 1;
      const int steps = static_cast<int>(header.x >> 16) / 8;
      const int words = static_cast<int>(header.y & 0xFFFFU);
      const int half = (steps + 1) / 2;
      const int first = chunk_ == 0 ? 0 : half;
      const int count = chunk_ == 0 ? half : steps - half;
      const SharedAddress values = tile + 16 + list_ * 16;
      const SharedAddress indices = tile + 16 + steps * kLists * 16;

      // Rows are kept as bytes, four in a register.
      if (is_delta) {
        const SharedAddress deltas = indices + list_ * 4;
        std::uint32_t base = 0xFEFEFEFFU;  // -1 in each byte, as one number
        for (int i = 0; i < first; ++i) {
          const std::uint32_t word = load_shared_4(deltas + i * kLists * 4);
          const std::uint32_t pairs = (word & 0x0F0F0F0FU) + (word >> 4 & 0x0F0F0F0FU);
          base += ((pairs * 0x01010101U) >> 24) * 0x01010101U + 0x08080808U;
        }
        unpack_steps(
            count,
            [&](int i, std::uint32_t(&rows)[2]) {
              const std::uint32_t word = load_shared_4(deltas + (first + i) * kLists * 4);
              const std::uint32_t odd = word >> 4 & 0x0F0F0F0FU;
              const std::uint32_t to_odd =
                  ((word & 0x0F0F0F0FU) + odd) * 0x01010101U;  // distances to slots 1, 3, 5, 7
              const std::uint32_t to_even = to_odd - odd;
              rows[0] = __byte_perm(to_even, to_odd, 0x5140) + base + 0x04030201U;
              rows[1] = __byte_perm(to_even, to_odd, 0x7362) + base + 0x08070605U;
              base += (to_odd >> 24) * 0x01010101U + 0x08080808U;
            },
            values + first * kLists * 16);
      } else {
        unpack_steps(
            count,
            [&](int i, std::uint32_t(&rows)[2]) {
              const uint2 word = load_shared_8(indices + ((first + i) * kLists + list_) * 8);
              rows[0] = word.x;
              rows[1] = word.y;
            },
            values + first * kLists * 16);
      }

      // Overflow: words of value and place, four a lane and store.
      const SharedAddress overflow = indices + steps * kLists * (is_delta ? 4 : 8);
      const int vectors = words / 4;
      kept_words_ = thread_ < vectors;
      for (int i = thread_; i < vectors; i += 128) {
        const uint4 four = load_shared_16(overflow + i * 16);
        store_half_word(buffer_ + (four.x >> 16), four.x);
        store_half_word(buffer_ + (four.y >> 16), four.y);
        store_half_word(buffer_ + (four.z >> 16), four.z);
        store_half_word(buffer_ + (four.w >> 16), four.w);
        kept_places_ = {__byte_perm(four.x, four.y, 0x7632), __byte_perm(four.z, four.w, 0x7632)};
      }
      dirty_ = half > kKept || vectors > 128;
      kept_ = count;
    }

   private:
    static constexpr int kLists = 64;
    /// Steps of 8 slots whose rows a lane remembers. Tiles of more are cleared as a whole, which is as fast.
    static constexpr int kKept = 6;

    /// Eight elements of this lane's list to their rows.
    __device__ void scatter(const std::uint32_t (&rows)[2], const uint4& values) {
      const SharedAddress column = buffer_ + list_ * 2;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const std::uint32_t row = __byte_perm(rows[i / 4], 0, 0x4440 + i % 4);
        const std::uint32_t pair = i < 2 ? values.x : i < 4 ? values.y : i < 6 ? values.z : values.w;
        store_half_word(column + row * (kUnitCols * 2), i % 2 == 0 ? pair : pair >> 16);
      }
    }

    /// Calls rows_of(i, rows) for each step of 8 slots, in order, and scatters their values.
    template <class RowsOf>
    __device__ __forceinline__ void unpack_steps(int count, const RowsOf& rows_of, SharedAddress values) {
#pragma unroll
      for (int i = 0; i < kKept; ++i) {
        if (i < count) {
          const uint4 eight = load_shared_16(values + i * kLists * 16);
          rows_of(i, kept_rows_[i]);
          scatter(kept_rows_[i], eight);
        }
      }
      for (int i = kKept; i < count; ++i) {
        std::uint32_t rows[2];
        const uint4 eight = load_shared_16(values + i * kLists * 16);
        rows_of(i, rows);
        scatter(rows, eight);
      }
    }

    const int thread_, chunk_, list_;
    const SharedAddress buffer_;
    bool dirty_ = true, kept_words_ = false;
    int kept_ = 0;
    std::uint32_t kept_rows_[kKept][2];
    uint2 kept_places_ = {0, 0};
  };
};

}  // namespace

const FusedKernel kBankCslSm90 = fused_kernel<BankCsl>("bank_csl_sm90");

}  // namespace sluice::kernels
