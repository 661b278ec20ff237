// One line per fact, made by scripts/linear_paths.py from what this measured, the large matrices first:
//
//   sluice bench spmm --shapes 7168x7168,28672x7168,12288x49152,49152x12288
//     --formats tiled_csl,bank_csl,bitmap,pairs24,int8,int8_g128,int4_g64,int4_g128,int4_sym_g64,
//     int4_sym_g128 --sparsity 0.5,0.7,0.8,0.9 --rows 8,16,32,64,128,256 --samples 3 --csv FILE
//
//   and the same with --shapes 4096x4096,5120x5120
//
// Over 51 million weights or more the fused kernels of the sparse formats win up to 128 rows, and where they
// run twice for 256, those of quantised weights too, 64 rows at a time; those of bitmaps up to 32 or 64. Over
// the small ones nearly all win up to 64 rows, those of quantised weights up to 128, pairs24 up to 128 or
// 256, bitmaps up to 16 or 32.
#include <array>
#include <limits>

#include "kernels/ops/linear_paths_cuda.h"

namespace sluice::kernels {
namespace {

constexpr std::int64_t kAnyRows = std::numeric_limits<std::int64_t>::max();

constexpr std::array kMeasured = {
    LinearPath{"NVIDIA H200", Encoding::kBankCsl, 51380224, 4.000, 256, "bank_csl_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kBankCsl, 51380224, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kBitmap, 51380224, 0.628, 64, "bitmap_sm80"},
    LinearPath{"NVIDIA H200", Encoding::kBitmap, 51380224, 0.628, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kBitmap, 51380224, 4.000, 32, "bitmap_sm80"},
    LinearPath{"NVIDIA H200", Encoding::kBitmap, 51380224, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt4G128, 51380224, 4.000, 256, "int4_g128_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt4G128, 51380224, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt4G64, 51380224, 4.000, 256, "int4_g64_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt4G64, 51380224, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt4SymG128, 51380224, 4.000, 256, "int4_sym_g128_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt4SymG128, 51380224, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt4SymG64, 51380224, 4.000, 256, "int4_sym_g64_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt4SymG64, 51380224, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt8, 51380224, 4.000, 256, "int8_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt8, 51380224, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt8G128, 51380224, 4.000, 256, "int8_g128_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt8G128, 51380224, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kPairs24, 51380224, 4.000, 256, "pairs24_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kPairs24, 51380224, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 51380224, 1.602, 256, "tiled_csl_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 51380224, 1.602, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 51380224, 4.000, 32, "tiled_csl_sm80"},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 51380224, 4.000, 128, "tiled_csl_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 51380224, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kBankCsl, 16777216, 4.000, 64, "bank_csl_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kBankCsl, 16777216, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kBitmap, 16777216, 0.928, 32, "bitmap_sm80"},
    LinearPath{"NVIDIA H200", Encoding::kBitmap, 16777216, 0.928, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kBitmap, 16777216, 4.000, 16, "bitmap_sm80"},
    LinearPath{"NVIDIA H200", Encoding::kBitmap, 16777216, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt4G128, 16777216, 4.000, 128, "int4_g128_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt4G128, 16777216, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt4G64, 16777216, 4.000, 128, "int4_g64_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt4G64, 16777216, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt4SymG128, 16777216, 4.000, 128, "int4_sym_g128_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt4SymG128, 16777216, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt4SymG64, 16777216, 4.000, 128, "int4_sym_g64_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt4SymG64, 16777216, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt8, 16777216, 4.000, 128, "int8_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt8, 16777216, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt8G128, 16777216, 4.000, 128, "int8_g128_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt8G128, 16777216, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kPairs24, 16777216, 0.684, 256, "pairs24_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kPairs24, 16777216, 0.684, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kPairs24, 16777216, 1.269, 128, "pairs24_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kPairs24, 16777216, 1.269, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kPairs24, 16777216, 4.000, 256, "pairs24_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kPairs24, 16777216, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 16777216, 0.601, 64, "tiled_csl_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 16777216, 0.601, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 16777216, 1.002, 8, "tiled_csl_sm80"},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 16777216, 1.002, 64, "tiled_csl_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 16777216, 1.002, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 16777216, 4.000, 64, "tiled_csl_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 16777216, 4.000, kAnyRows, ""},
};

}  // namespace

std::span<const LinearPath> measured_linear_paths() { return kMeasured; }

}  // namespace sluice::kernels
