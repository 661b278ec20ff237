// The fused product over quantised weights on sm_90a: the warps that bring codes, x and the groups'
// parameters into shared memory, x and parameters in the order and form in which the consumers take them. For
// *.cu files only.
#pragma once

#include "kernels/device/cuda/launch_kernel.cuh"
#include "kernels/format/cuda/mma_sm80.cuh"
#include "kernels/format/quantised/sm90_tile.cuh"

namespace sluice::kernels::fused {

/// Where parameters of two rows of a tile are, which are 32 rows apart in one block of rows.
struct ParamRows {
  const std::byte* first = nullptr;
  int tile = -1, count = 0;  // of these rows, as far as there are any

  __device__ void enter_tile(const QuantProduct& p, int new_tile, int row) {
    if (new_tile == tile) return;
    tile = new_tile;
    count = row + 32 < p.rows ? 2 : row < p.rows ? 1 : 0;
    const int block = row / 128 * 128;
    first = p.weight + row / 128 * p.block_bytes + std::int64_t{min(p.rows - block, 128)} * p.row_bytes +
            std::int64_t{row - block} * p.param_bytes;
  }
  __device__ const std::byte* row(const QuantProduct& p, int i) const {
    return first + i * 32 * p.param_bytes;
  }
};

/// Parameters of two rows a lane: rows 64 w + l and 32 further on of warp w, which are those of one product.
template <class Tile>
class ParamLoader {
 public:
  using T = typename Tile::T;

  __device__ ParamLoader(const QuantProduct& p, int team, int warp)
      : p_(p), team_(team), warp_(warp), row_(64 * warp + threadIdx.x % 32) {}

  __device__ void load(const UnitCursor& units) {
    rows_.enter_tile(p_, units.tile, units.tile * Tile::kRows + row_);
    const int group = units.unit * Tile::kCols >> p_.group_shift;
    const int count = min(max(1, Tile::kCols >> p_.group_shift), p_.num_groups - group);
#pragma unroll
    for (int i = 0; i < 2; ++i)
      load_row(reinterpret_cast<const Stored*>(rows_.row(p_, i)) + group, i < rows_.count ? count : 0,
               params_[i]);
  }

  /// Stores what load() has loaded: of a lane's row, first those of its two halves if it has the lower part
  /// of each, then of the upper part.
  __device__ void store(const QuantShared<Tile>& shared, int stage) {
    const std::uint32_t to = shared.params(stage) + row_ * (Tile::kParams * 4);
    if constexpr (Tile::kKind == CodeKind::kBytes) {
      store_shared_4(to, params_[0][0]);
      store_shared_4(to + 32 * 4, params_[1][0]);
    } else {
      constexpr bool kMinimum = Tile::kKind == CodeKind::kNibblesFromMinimum;
      unsigned way = 0;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int g = 0; g < Tile::kParams; ++g)
          way = max(way, static_cast<unsigned>(decode_way<T>(params_[i][g])));
      }
      way = way_of_group(way);
      if (static_cast<DecodeWay>(way) == DecodeWay::kScaledNibbles) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
          for (int g = 0; g < Tile::kParams; ++g) params_[i][g] = scale_nibbles<kMinimum>(params_[i][g]);
        }
      }
      const bool four = p_.group_shift == 6;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const std::uint32_t(&v)[4] = params_[i];
        store_shared_16(to + i * (32 * 16),
                        four ? make_uint4(v[0], v[2], v[1], v[3]) : make_uint4(v[0], v[1], v[0], v[1]));
      }
      if (warp_ % Tile::kProductsOfGroup == 0 && threadIdx.x % 32 == 0)
        store_shared_4(shared.ways(stage) + warp_ / Tile::kProductsOfGroup * 4, way);
    }
  }

 private:
  using Stored =
      std::conditional_t<Tile::kKind == CodeKind::kNibblesFromMinimum, std::uint32_t, std::uint16_t>;

  /// The largest of all rows that one group of consumers has.
  __device__ unsigned way_of_group(unsigned way) const {
    static_assert(Tile::kProductsOfGroup <= 2);
    way = __reduce_max_sync(0xFFFFFFFFU, way);
    if constexpr (Tile::kProductsOfGroup == 2) {
      const int barrier = 1 + team_ * 2 + warp_ / 2;
      unsigned all = 0;
      if (sm90::sync_any<64>(barrier, way >= 1)) all = 1;
      if (sm90::sync_any<64>(barrier, way >= 2)) all = 2;
      return all;
    }
    return way;
  }

  __device__ void load_row(const Stored* from, int count, std::uint32_t (&to)[Tile::kParams]) {
    if constexpr (Tile::kKind == CodeKind::kNibblesFromMinimum) {
      if (count == 4 && p_.params_are_aligned) {
        const uint4 v = __ldg(reinterpret_cast<const uint4*>(from));
        to[0] = v.x;
        to[1] = v.y;
        to[2] = v.z;
        to[3] = v.w;
        return;
      }
    }
#pragma unroll
    for (int g = 0; g < Tile::kParams; ++g) to[g] = g < count ? __ldg(from + g) : 0;
  }

  const QuantProduct& p_;
  const int team_, warp_, row_;
  ParamRows rows_;
  std::uint32_t params_[2][Tile::kParams] = {};
};

/// Columns of x for the steps of the multiplier. An item is 8 rows of x by one half of a unit's columns (of
/// 8-bit codes: by both); lane l has row l % 8 and, from each of four lanes' 16 bytes of codes, the columns
/// of the same 8: all that two steps take of that row.
template <class Tile>
class XColumns {
 public:
  using T = typename Tile::T;

  __device__ XColumns(const QuantProduct& p, int warp)
      : p_(p),
        warp_(warp),
        row_(threadIdx.x % 8),
        unit_(threadIdx.x % 32 / 8 % Tile::kLanesUnits),
        half_(threadIdx.x % 32 / 8 / Tile::kLanesUnits) {}

  __device__ void load(int unit) {
    const int first = unit * Tile::kCols;
    const bool fast = p_.x_is_aligned && first + Tile::kCols <= p_.cols;
#pragma unroll
    for (int i = 0; i < Tile::kItemsOfWarp; ++i) {
      if (!has_item(i)) break;
      const int n = token_tile(i) * 8 + row_;
      const int col = first + half(i) * Tile::kHalfCols + unit_ * 8;
      const T* from = static_cast<const T*>(p_.x) + n * p_.x_stride;
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        const int at = col + t * (Tile::kLanesUnits * 8);
        values_[i][t] = make_uint4(0, 0, 0, 0);
        if (n < p_.out.tokens) {
          if (fast || (p_.x_is_aligned && at + 8 <= p_.cols)) {
            values_[i][t] = __ldcg(reinterpret_cast<const uint4*>(from + at));
          } else if (at < p_.cols) {
            values_[i][t] = gather_unit(from, at, p_.cols);
          }
        }
      }
    }
  }

  __device__ void store(std::uint32_t x_at) const {
#pragma unroll
    for (int i = 0; i < Tile::kItemsOfWarp; ++i) {
      if (!has_item(i)) break;
      const uint4(&v)[4] = values_[i];
      const int step = half(i) * (2 * Tile::kLanesUnits) + unit_ * 2;
      const std::uint32_t to = x_at + step * Tile::kStepBytes + token_tile(i) * 128 + row_ * 16;
      constexpr int kNextColumns = Tile::kStepBytes / 2;
#pragma unroll
      for (int quarter = 0; quarter < 4; ++quarter) {
        const uint4 columns =
            make_uint4(pair(v[0], quarter), pair(v[1], quarter), pair(v[2], quarter), pair(v[3], quarter));
        store_shared_16(to + quarter * kNextColumns, columns);
      }
    }
  }

 private:
  __device__ int item(int i) const { return warp_ + Tile::kTeamWarps * i; }
  __device__ bool has_item(int i) const {
    return Tile::kItems % Tile::kTeamWarps == 0 || item(i) < Tile::kItems;
  }
  static constexpr bool kItemIsHalf = Tile::kKind != CodeKind::kBytes;
  __device__ int token_tile(int i) const { return kItemIsHalf ? item(i) / 2 : item(i); }
  __device__ int half(int i) const { return kItemIsHalf ? item(i) % 2 : half_; }
  /// What decode_unit makes of the codes of these columns, number i.
  __device__ static std::uint32_t pair(const uint4& v, int i) {
    if constexpr (Tile::kKind == CodeKind::kBytes) return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
    return i < 2 ? __byte_perm(v.x, v.z, i == 0 ? 0x5410 : 0x7632)
                 : __byte_perm(v.y, v.w, i == 2 ? 0x5410 : 0x7632);
  }

  const QuantProduct& p_;
  const int warp_, row_, unit_, half_;
  uint4 values_[Tile::kItemsOfWarp][4];
};

/// The codes as tensors of [blocks][128 rows][bytes of a row]: full blocks, and the last one.
struct CodeMaps {
  CUtensorMap full, last;
  std::int32_t full_blocks;
};

/// The copies of codes, by one thread.
template <class Tile>
class CodeCopies {
 public:
  __device__ CodeCopies(const QuantProduct& p, const CodeMaps& maps, const QuantShared<Tile>& shared)
      : p_(p), maps_(maps), shared_(shared), policy_(evict_first_policy()) {}

  /// Starts those of a unit, into a stage that is empty.
  __device__ void start(const UnitCursor& units, int stage) const {
    const std::uint32_t full = shared_.full(stage);
    const int block = 2 * units.tile;
    const bool two = (block + 1) * 128 < p_.rows;
    sm90::barrier_arrive_expect(full, two ? Tile::kCodeBytes : Tile::kCodeBytes / 2);
    for (int b = 0; b < (two ? 2 : 1); ++b) {
      const bool in_full = block + b < maps_.full_blocks;
      sm90::tensor_copy(shared_.codes(stage) + b * (Tile::kCodeBytes / 2),
                        in_full ? &maps_.full : &maps_.last, units.unit * Tile::kUnitBytes, 0,
                        in_full ? block + b : 0, full, policy_);
    }
  }

 private:
  const QuantProduct& p_;
  const CodeMaps& maps_;
  const QuantShared<Tile>& shared_;
  const std::uint64_t policy_;
};

/// All that one warp of a team does; the first one copies codes, too.
template <class Tile>
__device__ void bring_operands(const QuantProduct& p, const CodeMaps& maps, const QuantShared<Tile>& shared,
                               int team, int warp) {
  constexpr int kTeams = Tile::kTeams;
  const bool copies = warp == 0 && threadIdx.x % 32 == 0;
  const CodeCopies<Tile> codes(p, maps, shared);
  UnitCursor units(p.work);
  units.advance(team);
  if (units.left <= 0) return;
  if (copies) {
    UnitCursor ahead = units;
    for (int stage = team; stage < Tile::kStages && ahead.left > 0; stage += kTeams, ahead.advance(kTeams))
      codes.start(ahead, stage);
  }
  __syncwarp();
  ParamLoader<Tile> params(p, team, warp);
  XColumns<Tile> x(p, warp);
  params.load(units);
  wait_for_kernels_before();
  x.load(units.unit);
  RingPlace<Tile> place;
  place.advance(team);
  bool is_first_round = true;  // codes of the ring's first round are on their way
  while (true) {
    if (!is_first_round) {
      sm90::barrier_wait(shared.empty(place.stage), place.parity ^ 1);
      if (copies) codes.start(units, place.stage);
      __syncwarp();
    }
    params.store(shared, place.stage);
    x.store(shared.x(place.stage));
    sm90::fence_for_async_reads();
    __syncwarp();
    if (threadIdx.x % 32 == 0) sm90::barrier_arrive(shared.full(place.stage));
    place.advance(kTeams);
    is_first_round = is_first_round && place.stage >= kTeams;
    units.advance(kTeams);
    if (units.left <= 0) return;
    params.load(units);
    x.load(units.unit);
  }
}

}  // namespace sluice::kernels::fused
