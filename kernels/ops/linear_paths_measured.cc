// One line per fact, made by scripts/linear_paths.py from what this measured:
//
//   sluice bench spmm --formats tiled_csl,bank_csl --shapes 7168x7168,28672x7168,12288x49152,49152x12288
//     --sparsity 0.5,0.7,0.8,0.9 --rows 8,16,32,64,128,256,512 --samples 3 --csv FILE
//
//   sluice bench spmm --formats bitmap --shapes 7168x7168,12288x12288,7168x28672,28672x7168
//     --sparsity 0.5,0.7,0.8,0.9 --rows 8,16,32,64,128 --samples 3 --csv FILE
//
//   sluice bench spmm --formats tiled_csl,bank_csl,bitmap --shapes 4096x4096,5120x5120
//     --sparsity 0.5,0.7,0.8,0.9 --rows 8,16,32,64,128,256 --samples 3 --csv FILE
//
//   sluice bench spmm --formats pairs24 --shapes 4096x4096,5120x5120 (the default ones give the same rows)
//     --sparsity 0.5,0.6,0.7,0.8,0.9 --rows 8,16,32,64,128 --samples 3 --csv FILE
//
//   sluice bench spmm --formats int8,int8_g128,int4_g64,int4_g128,int4_sym_g64,int4_sym_g128
//     --shapes 28672x7168 (and 4096x4096,5120x5120) --rows 8,16,32,64,128 --samples 3 --csv FILE
//
// Over 51 million weights or more the fused kernels of tiled_csl and bank_csl win at all four shares of zeros
// up to their 128 rows (at 128 rows and 80 % zeros by 1.6 times), and lose where they would have to run
// twice; over small matrices up to 64 rows, tiled_csl partly in its sm_80 form. That of bitmaps wins at few
// rows, by 1.23 to 2.30 times at 16 over the large ones; that of pairs24 up to 128 over all, by 2.5 to 6.2
// times at 16. Those of quantised weights win up to 128 rows over the large matrix and up to 64 over the
// small ones. (Of products as they were before they stored results in pairs: those of bitmap, pairs24 and the
// quantised formats have become 0 to 30 % faster since, KERNELS.md.)
#include <array>
#include <limits>

#include "kernels/ops/linear_paths_cuda.h"

namespace sluice::kernels {
namespace {

constexpr std::int64_t kAnyRows = std::numeric_limits<std::int64_t>::max();

constexpr std::array kMeasured = {
    LinearPath{"NVIDIA H200", Encoding::kBankCsl, 51380224, 4.000, 128, "bank_csl_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kBankCsl, 51380224, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kBitmap, 51380224, 0.428, 32, "bitmap_sm80"},
    LinearPath{"NVIDIA H200", Encoding::kBitmap, 51380224, 0.428, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kBitmap, 51380224, 0.628, 64, "bitmap_sm80"},
    LinearPath{"NVIDIA H200", Encoding::kBitmap, 51380224, 0.628, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kBitmap, 51380224, 4.000, 32, "bitmap_sm80"},
    LinearPath{"NVIDIA H200", Encoding::kBitmap, 51380224, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 51380224, 4.000, 128, "tiled_csl_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 51380224, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kBankCsl, 16777216, 4.000, 64, "bank_csl_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kBankCsl, 16777216, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kBitmap, 16777216, 0.928, 16, "bitmap_sm80"},
    LinearPath{"NVIDIA H200", Encoding::kBitmap, 16777216, 0.928, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kBitmap, 16777216, 4.000, 8, "bitmap_sm80"},
    LinearPath{"NVIDIA H200", Encoding::kBitmap, 16777216, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 16777216, 1.002, 32, "tiled_csl_sm80"},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 16777216, 1.002, 64, "tiled_csl_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 16777216, 1.002, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 16777216, 1.602, 8, "tiled_csl_sm80"},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 16777216, 1.602, 64, "tiled_csl_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 16777216, 1.602, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 16777216, 4.000, 8, "tiled_csl_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 16777216, 4.000, 32, "tiled_csl_sm80"},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 16777216, 4.000, 64, "tiled_csl_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kTiledCsl, 16777216, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kPairs24, 16777216, 4.000, 128, "pairs24_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kPairs24, 16777216, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt4G128, 205520896, 4.000, 128, "int4_g128_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt4G128, 205520896, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt4G64, 205520896, 4.000, 128, "int4_g64_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt4G64, 205520896, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt4SymG128, 205520896, 4.000, 128, "int4_sym_g128_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt4SymG128, 205520896, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt4SymG64, 205520896, 4.000, 128, "int4_sym_g64_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt4SymG64, 205520896, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt8, 205520896, 4.000, 16, "int8_sm80"},
    LinearPath{"NVIDIA H200", Encoding::kInt8, 205520896, 4.000, 128, "int8_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt8, 205520896, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt8G128, 205520896, 4.000, 16, "int8_g128_sm80"},
    LinearPath{"NVIDIA H200", Encoding::kInt8G128, 205520896, 4.000, 128, "int8_g128_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt8G128, 205520896, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt4G128, 16777216, 4.000, 64, "int4_g128_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt4G128, 16777216, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt4G64, 16777216, 4.000, 64, "int4_g64_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt4G64, 16777216, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt4SymG128, 16777216, 4.000, 64, "int4_sym_g128_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt4SymG128, 16777216, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt4SymG64, 16777216, 4.000, 64, "int4_sym_g64_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt4SymG64, 16777216, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt8, 16777216, 4.000, 64, "int8_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt8, 16777216, 4.000, kAnyRows, ""},
    LinearPath{"NVIDIA H200", Encoding::kInt8G128, 16777216, 4.000, 64, "int8_g128_sm90"},
    LinearPath{"NVIDIA H200", Encoding::kInt8G128, 16777216, 4.000, kAnyRows, ""},
};

}  // namespace

std::span<const LinearPath> measured_linear_paths() { return kMeasured; }

}  // namespace sluice::kernels
