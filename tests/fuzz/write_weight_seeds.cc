// Writes seeds/weight: a small matrix in every format that has a codec.
//
//   write_weight_seeds seeds/weight
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "kernels/format/format.h"

namespace sluice {
namespace {

/// A header as fuzz_weight.cc reads it, and the stored bytes. Of `period` values one is not zero.
void write_seed(const std::filesystem::path& folder, std::size_t index, DType dtype, std::int64_t rows,
                std::int64_t cols, std::int64_t period = 3, const std::string& suffix = "") {
  const WeightFormat format{all_encodings()[index], dtype};
  std::vector<std::uint16_t> values;
  for (std::int64_t i = 0; i < rows * cols; ++i) {
    const float value = i % period == 0 ? static_cast<float>(i % 11) / 8.0F - 0.5F : 0.0F;
    values.push_back(dtype == DType::kF16 ? to_half(value).bits : to_bfloat16(value).bits);
  }
  const TensorSpec tensor{"w", 0, rows, cols, false, SplitRule::kReplicated};
  const std::vector<std::byte> stored = kernels::encode_matrix(tensor, format, values);
  std::ofstream out(folder / (weight_format_name(format) + suffix), std::ios::binary);
  for (const auto byte : {index, std::size_t{dtype == DType::kF16 ? 0U : 1U},
                          static_cast<std::size_t>(rows - 1), static_cast<std::size_t>(cols - 1)}) {
    out.put(static_cast<char>(byte));
  }
  out.write(reinterpret_cast<const char*>(stored.data()), static_cast<std::streamsize>(stored.size()));
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: write_weight_seeds FOLDER\n", stderr);
    return 2;
  }
  std::filesystem::create_directories(argv[1]);
  for (std::size_t i = 0; i < sluice::all_encodings().size(); ++i) {
    try {
      sluice::write_seed(argv[1], i, sluice::DType::kF16, 3, 70);
      sluice::write_seed(argv[1], i, sluice::DType::kBF16, 35, 2);
    } catch (const sluice::Error& error) {
      if (error.code() != sluice::Code::kUnsupported) throw;
    }
  }
  // Units of which something is left, little and much.
  const auto pairs24 = static_cast<std::size_t>(sluice::Encoding::kPairs24);
  sluice::write_seed(argv[1], pairs24, sluice::DType::kF16, 3, 8, 1, "_entries");
  sluice::write_seed(argv[1], pairs24, sluice::DType::kF16, 20, 48, 1, "_masks");
}
