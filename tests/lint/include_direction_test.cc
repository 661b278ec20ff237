#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include <gtest/gtest.h>

#include "tests/lint/include_rules.h"
#include "tests/support/paths.h"

namespace sluice::lint {
namespace {

namespace fs = std::filesystem;

fs::path repository() { return testing::test_dir().parent_path(); }

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Paths relative to the root, of the files below the folders that hold code and end in one of `extensions`.
std::vector<fs::path> files(const std::set<std::string>& extensions) {
  std::vector<fs::path> found;
  for (const char* folder : {"core", "kernels", "policy", "offload", "apps", "tests"}) {
    for (const auto& entry : fs::recursive_directory_iterator(repository() / folder)) {
      if (entry.is_regular_file() && extensions.contains(entry.path().extension())) {
        found.push_back(entry.path().lexically_relative(repository()));
      }
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

class SourceTree : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(repository() / "CMakeLists.txt")) GTEST_SKIP() << "needs the source tree";
  }
};

TEST_F(SourceTree, IncludesPointDownAndThroughOneDoor) {
  const auto sources = files({".h", ".cc", ".cu", ".cuh"});
  ASSERT_GT(sources.size(), 30U);
  for (const fs::path& path : sources) {
    for (const std::string& breach : check_includes(path.generic_string(), read(repository() / path))) {
      ADD_FAILURE() << breach;
    }
  }
}

// CMAKE_VERIFY_INTERFACE_HEADER_SETS compiles every header of a header set alone; so each must be in one.
// Not *_inl.h, which are included once per SIMD target, nor the headers of tests.
TEST_F(SourceTree, EveryHeaderIsInAHeaderSet) {
  for (const fs::path& header : files({".h"})) {
    if (*header.begin() == "tests" || header.stem().string().ends_with("_inl")) continue;
    bool listed = false;
    for (fs::path dir = header.parent_path(); !dir.empty(); dir = dir.parent_path()) {
      const std::string cmake = read(repository() / dir / "CMakeLists.txt");
      listed |= cmake.find(header.lexically_relative(dir).generic_string()) != std::string::npos;
    }
    EXPECT_TRUE(listed) << header << " is in no CMakeLists.txt; add it to the HEADERS of its library";
  }
}

struct Planted {
  const char* path;
  const char* line;
};
void PrintTo(const Planted& planted, std::ostream* out) { *out << planted.path << ": " << planted.line; }

class PlantedBreach : public ::testing::TestWithParam<Planted> {};

TEST_P(PlantedBreach, IsFoundAtItsLine) {
  const auto breaches =
      check_includes(GetParam().path, std::string("#pragma once\n") + GetParam().line + "\n");
  ASSERT_EQ(breaches.size(), 1U);
  EXPECT_EQ(breaches[0].find(std::string(GetParam().path) + ":2: "), 0U) << breaches[0];
}

INSTANTIATE_TEST_SUITE_P(
    EachRule, PlantedBreach,
    ::testing::Values(
        Planted{"core/a.h", "#include \"kernels/ops/linear.h\""},
        Planted{"core/a.h", "#include \"policy/placement.h\""},
        Planted{"core/a.h", "#include \"tests/support/paths.h\""},
        Planted{"kernels/a.cc", "#include \"policy/placement.h\""},
        Planted{"kernels/a.cc", "  #  include \"offload/engine.h\"  // why"},
        Planted{"policy/a.cc", "#include \"kernels/device/stream.h\""},
        Planted{"offload/a.cc", "#include \"apps/commands.h\""},
        Planted{"offload/a.cc", "#include \"engine.h\""},
        Planted{"apps/eval/a.cc", "#include \"../commands.h\""},
        Planted{"kernels/ops/linear.cc", "#include <cuda_runtime.h>"},
        Planted{"kernels/ops/linear_cuda.cc", "#include <cuda_runtime.h>"},
        Planted{"apps/cuda/a.cc", "#include <cublasLt.h>"},
        Planted{"offload/io/block_io.cc", "#include <liburing.h>"},
        Planted{"core/model/spec.cc", "#include <yaml-cpp/yaml.h>"},
        Planted{"apps/main.cc", "#include <boost/asio.hpp>"},
        Planted{"offload/a.cc", "#include <hwy/highway.h>"},
        Planted{"apps/a.cc", "#include <spdlog/spdlog.h>"}, Planted{"core/store/a.cc", "#include <pcre2.h>"},
        Planted{"offload/a.cc", "#include <xxhash.h>"}, Planted{"core/a.cc", "#include <CLI/CLI.hpp>"},
        Planted{"kernels/a.cc", "#include <nlohmann/json.hpp>"},
        Planted{"core/a.cc", "#include <gtest/gtest.h>"},
        Planted{"kernels/a.cc", "#include <benchmark/benchmark.h>"},
        Planted{"policy/a.cc", "#include <fstream>"}, Planted{"policy/a.cc", "#include <thread>"},
        Planted{"policy/a.cc", "#include <sys/mman.h>"}, Planted{"core/a.cc", "#include <thread>"}));

TEST(IncludeRules, AllowWhatEachDoorIsFor) {
  const Planted allowed[] = {{"kernels/device/cuda/stream.cc", "#include <cuda_runtime.h>"},
                             {"kernels/ops/rms_norm_cuda.cu", "#include <cuda_fp16.h>"},
                             {"kernels/bench/cuda/judge.cc", "#include <cusparse.h>"},
                             {"kernels/format/cuda/fused_cuda.h", "#include <cuda_runtime_api.h>"},
                             {"offload/io/uring_io.cc", "#include <liburing.h>"},
                             {"core/config/yaml.cc", "#include <yaml-cpp/yaml.h>"},
                             {"apps/server/http.cc", "#include <boost/beast.hpp>"},
                             {"kernels/ops/linear_cpu.cc", "#include <hwy/highway.h>"},
                             {"offload/executor/executor.cc", "#include <thread>"},
                             {"offload/engine.cc", "#include \"policy/placement.h\""},
                             {"policy/a.cc", "#include \"core/error.h\""},
                             {"tests/policy/a_test.cc", "#include <fstream>"},
                             {"policy/a.cc", "// #include <fstream>"}};
  for (const Planted& planted : allowed) {
    EXPECT_TRUE(check_includes(planted.path, planted.line).empty()) << planted.path << ": " << planted.line;
  }
}

}  // namespace
}  // namespace sluice::lint
