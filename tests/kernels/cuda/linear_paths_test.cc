// The choice of a kernel for products over encoded weights. Needs no device.
#include <algorithm>
#include <array>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "kernels/ops/linear_paths_cuda.h"

namespace sluice::kernels {
namespace {

bool takes_all(const LinearArgs& args) { return args.y.rows <= 64 && args.x.rows == args.y.rows; }
bool takes_bias_only(const LinearArgs& args) { return takes_all(args) && static_cast<bool>(args.bias); }
FusedMemoryBytes one_and_two_mebibytes_a_row(WeightFormat, std::int64_t, std::int64_t, std::int64_t rows) {
  return {.counters = rows << 20, .scratch = rows << 21};
}
void run_nothing(const LinearArgs&, const FusedMemory&, cudaStream_t) {}

FusedKernel kernel(std::string_view name, int least, int most, bool (*can_run)(const LinearArgs&)) {
  return {.name = name,
          .encoding = Encoding::kTiledCsl,
          .min_compute_capability = least,
          .max_compute_capability = most,
          .max_rows = 64,
          .can_run = can_run,
          .memory_bytes = one_and_two_mebibytes_a_row,
          .run = run_nothing};
}
const std::array kKernels = {kernel("with_bias", 80, 999, takes_bias_only),
                             kernel("new_only", 90, 90, takes_all), kernel("plain", 80, 999, takes_all)};

constexpr Encoding kCsl = Encoding::kTiledCsl;
// For weights with few nonzeros up to 100 rows of x, else up to 10; on the other device up to 5.
const std::array kMeasured = {LinearPath{"Device A", kCsl, 1000, 0.5, 10, "with_bias"},
                              LinearPath{"Device A", kCsl, 1000, 0.5, 100, "new_only"},
                              LinearPath{"Device A", kCsl, 1000, 1.0, 10, "plain"},
                              LinearPath{"Device B", kCsl, 0, 0.1, 1000, ""},
                              LinearPath{"Device B", kCsl, 0, 4.0, 5, "plain"},
                              LinearPath{"Device A", kCsl, 0, 4.0, 1000, "gone"}};

struct Case {
  const char* device = "Device A 80GB";
  int compute_capability = 90;
  std::int64_t rows = 8;  // of x
  std::int64_t stored = 800;
  bool bias = true;
  std::int64_t counters = std::int64_t{64} << 20, scratch = std::int64_t{128} << 20;
  Encoding encoding = kCsl;
  std::int64_t elements = 2000;
};

std::string chosen(const Case& c) {
  const LinearPaths paths(c.device, c.compute_capability, kMeasured, kKernels);
  static const std::array<std::byte, 8000> bytes{};
  static const std::array<std::byte, 16> bias{};
  LinearArgs args;
  args.weight = {{c.encoding, DType::kF16},
                 std::span<const std::byte>(bytes).first(static_cast<std::size_t>(c.stored)),
                 c.elements / 10,
                 10};
  args.x.rows = args.y.rows = c.rows;
  if (c.bias) args.bias = {bias.data(), DType::kF16, 1};
  const FusedKernel* kernel = paths.kernel_for(args, {.counters = c.counters, .scratch = c.scratch});
  return kernel == nullptr ? "expansion" : std::string(kernel->name);
}

TEST(LinearPaths, TakesTheFirstRowThatCoversTheProduct) {
  EXPECT_EQ(chosen({}), "with_bias");
  EXPECT_EQ(chosen({.rows = 11}), "new_only");
  EXPECT_EQ(chosen({.rows = 100}), "new_only") << "in runs of 64";
  EXPECT_EQ(chosen({.rows = 101}), "expansion");
  EXPECT_EQ(chosen({.stored = 2000}), "plain") << "a byte an element";
  EXPECT_EQ(chosen({.stored = 2001}), "expansion");
  EXPECT_EQ(chosen({.elements = 990}), "expansion") << "a small weight";
}

TEST(LinearPaths, AnotherDeviceEncodingOrGenerationHasItsOwnRowsOrNone) {
  EXPECT_EQ(chosen({.device = "Device B", .rows = 5}), "plain");
  EXPECT_EQ(chosen({.device = "Device B", .rows = 6}), "expansion");
  EXPECT_EQ(chosen({.device = "Device B", .rows = 5, .stored = 200}), "expansion") << "a row says so";
  EXPECT_EQ(chosen({.device = "Device C"}), "expansion");
  EXPECT_EQ(chosen({.encoding = Encoding::kBankCsl}), "expansion");
  EXPECT_EQ(chosen({.compute_capability = 80, .rows = 11}), "expansion") << "not compiled for it";
}

TEST(LinearPaths, PassesOverAKernelThatCannotRun) {
  EXPECT_EQ(chosen({.bias = false}), "new_only");
  EXPECT_EQ(chosen({.counters = std::int64_t{8} << 20, .scratch = std::int64_t{16} << 20}), "with_bias");
  EXPECT_EQ(chosen({.counters = (std::int64_t{8} << 20) - 1}), "expansion");
  EXPECT_EQ(chosen({.scratch = (std::int64_t{16} << 20) - 1}), "expansion");
  EXPECT_EQ(chosen({.rows = 80}), "new_only") << "64 rows at a time";
}

// A build for other architectures than sm_90a has fewer kernels.
TEST(LinearPaths, TheMeasuredTableNamesKernelsOfACompleteBuild) {
  std::set<std::string_view> names;
  for (const FusedKernel& each : fused_kernels()) names.insert(each.name);
  EXPECT_EQ(names.size(), fused_kernels().size()) << "names are unique";
  for (const LinearPath& path : measured_linear_paths()) {
    if (path.kernel.empty()) continue;
    const auto found = std::ranges::find(fused_kernels(), path.kernel, &FusedKernel::name);
    if (found == fused_kernels().end()) {
      EXPECT_FALSE(names.contains("tiled_csl_sm90")) << path.kernel;
    } else {
      EXPECT_EQ(found->encoding, path.encoding) << path.kernel;
    }
  }
}

}  // namespace
}  // namespace sluice::kernels
