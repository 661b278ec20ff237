// Writes the seeds of the checkpoint fuzz targets: write_checkpoint_seeds tests/fuzz/seeds
#include <filesystem>
#include <fstream>
#include <utility>

#include <fmt/format.h>

#include "tests/fakes/checkpoint_cases.h"

int main(int argc, char** argv) {
  using namespace sluice::testing;
  if (argc != 2) {
    fmt::print(stderr, "usage: {} <folder of the seeds>\n", argv[0]);
    return 2;
  }
  for (const auto& [name, cases] : {std::pair{"safetensors", safetensors_cases()},
                                    {"npy", npy_cases()},
                                    {"torch_zip/zip", torch_zip_cases()},
                                    {"torch_zip/pickle", pickle_cases()},
                                    {"config_json/config", hf_config_cases()},
                                    {"config_json/index", shard_index_cases()}}) {
    const std::filesystem::path folder = std::filesystem::path(argv[1]) / name;
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder);
    for (const ParserCase& c : cases) std::ofstream(folder / c.name, std::ios::binary) << c.input;
  }
  return 0;
}
