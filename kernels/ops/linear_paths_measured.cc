// One line per fact, made by scripts/linear_paths.py from what this measured:
//
//   sluice bench spmm --formats tiled_csl,bank_csl --shapes 7168x7168,28672x7168,12288x49152,49152x12288
//     --sparsity 0.5,0.7,0.8,0.9 --rows 8,16,32,64,128,256,512 --samples 3 --csv FILE
//
//   sluice bench spmm --formats bitmap --shapes 7168x7168,12288x12288,7168x28672,28672x7168
//     --sparsity 0.5,0.7,0.8,0.9 --rows 8,16,32,64,128 --samples 3 --csv FILE
//
// The fused kernels of the first two formats win at all four shares of zeros up to their 128 rows (at 128
// rows and 80 % zeros by 1.6 times), and lose where they would have to run twice. That of bitmaps wins at few
// rows: by 1.23 to 2.30 times at 16.
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
};

}  // namespace

std::span<const LinearPath> measured_linear_paths() { return kMeasured; }

}  // namespace sluice::kernels
