// Hardware profiles: what is read, what is refused, what stands in for what is missing.
#include "policy/hardware.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/config/config.h"
#include "policy/rates.h"
#include "tests/support/error_of.h"

namespace sluice::policy {
namespace {

using ::testing::HasSubstr;

std::vector<std::string> missing(const ReadProfile& read) {
  std::vector<std::string> keys;
  for (const MissingField& field : read.defaulted) keys.push_back(field.key);
  return keys;
}

TEST(Hardware, AnEmptyFileTakesEveryDefaultAndNamesThem) {
  const ReadProfile read = parse_hardware("", "none.yaml");
  EXPECT_EQ(to_yaml(read.profile), to_yaml(HardwareProfile{}));
  EXPECT_THAT(missing(read), ::testing::IsSupersetOf({"machine.name", "memory.gpu_gib", "link.h2d",
                                                      "gpu.products", "overheads.pass_usec"}));
}

TEST(Hardware, MissingFieldsAreNamedWithTheirDefaults) {
  const ReadProfile read =
      parse_hardware("memory: {gpu_gib: 16}\nlink: {pageable_gb_per_sec: 5}\n", "a.yaml");
  EXPECT_EQ(read.profile.memory.gpu_gib, 16);
  const auto keys = missing(read);
  EXPECT_EQ(std::count(keys.begin(), keys.end(), "memory.gpu_gib"), 0);
  EXPECT_EQ(std::count(keys.begin(), keys.end(), "link.pageable_gb_per_sec"), 0);
  for (const MissingField& field : read.defaulted) {
    if (field.key == "memory.cpu_gib") {
      EXPECT_EQ(field.default_value, "16");
    } else if (field.key == "disk.write") {
      EXPECT_THAT(field.default_value, HasSubstr("gb_per_sec: 0.8"));
    }
  }
}

TEST(Hardware, WhatIsWrittenReadsBackEqual) {
  HardwareProfile profile;
  profile.machine.name = "a \"machine\": with marks";
  profile.gpu.products = {{Encoding::kDense, ProductKernel::kFused, 1, 0.2, 1.5},
                          {Encoding::kBitmap, ProductKernel::kFused, 16, 3.25, 0, 26.5},
                          {Encoding::kBitmap, ProductKernel::kExpand, 512, 333.125, 2}};
  profile.cpu.attention = {{KvFormat::kF32, 3, 12.5, 1}};
  profile.beside = {{LaneKind::kDiskRead, LaneKind::kDiskWrite, 0.5}};
  profile.beside_attention = {{8, 0.9, 0.8, 0.7}};
  profile.memory.gpu_is_host = true;
  const std::string text = to_yaml(profile);
  const ReadProfile read = parse_hardware(text, "written.yaml");
  EXPECT_EQ(to_yaml(read.profile), text);
  EXPECT_TRUE(read.defaulted.empty()) << read.defaulted.front().key;
  EXPECT_EQ(read.profile.gpu.products[2].kernel, ProductKernel::kExpand);
  EXPECT_EQ(read.profile.gpu.products[2].tflop_per_sec, 333.125);
  EXPECT_EQ(read.profile.beside_attention[0].attention_share, 0.7);
  EXPECT_THAT(text, HasSubstr("- {format: bitmap, kernel: fused, rows: 16, tflop_per_sec: 3.25, "
                              "spread_percent: 0, million_weights: 26.5}"));
}

TEST(Hardware, EveryProfileThatShipsIsComplete) {
  const std::vector<std::string> names = builtin_hardware_names();
  EXPECT_THAT(names, ::testing::IsSupersetOf({"t4-208gb", "laptop-8gb", "h200-141gb", "h100-80gb"}));
  for (const std::string& name : names) {
    const auto profile = find_builtin_hardware(name);
    ASSERT_TRUE(profile.has_value());
    EXPECT_FALSE(profile->machine.source.empty()) << name;
    EXPECT_GE(profile->link.h2d.size(), 2U) << name;
  }
  EXPECT_FALSE(find_builtin_hardware("t4").has_value());
}

/// What the design's table says of the reference machine; tests/policy/planner_test plans for it.
TEST(Hardware, TheReferenceMachineHasTheRatesOfItsTable) {
  const HardwareProfile machine = find_builtin_hardware("h100-80gb").value();
  EXPECT_THAT(machine.machine.source, HasSubstr("h200-141gb"));
  const Rates rates(machine, 15);
  const auto gb_per_sec = [](double bytes, double sec) { return bytes / sec / 1e9; };
  EXPECT_NEAR(gb_per_sec(32e6, rates.copy_sec(Link::kH2d, 32'000'000, 32'000'000)), 53.5, 1.5);
  EXPECT_NEAR(gb_per_sec(65536, rates.copy_sec(Link::kH2d, 65536, 65536)), 17, 0.5);
  EXPECT_NEAR(gb_per_sec(1e9, rates.gpu_copy_sec(1e9)), 3030, 1);
  EXPECT_NEAR(gb_per_sec(1e9, rates.disk_read_sec(1'000'000'000)), 1.65, 0.01);
  EXPECT_NEAR(gb_per_sec(1e9, rates.disk_write_sec(1'000'000'000)), 1.87, 0.01);
  const unsigned both = 1U << lane_index(LaneKind::kH2d) | 1U << lane_index(LaneKind::kCpu);
  EXPECT_NEAR(53.5 * rates.share(LaneKind::kH2d, both), 46, 0.5) << "beside 15 threads that read";
  EXPECT_LE(1e9 / rates.cpu_decode_sec(KvFormat::kF16, 1e9) / 1e9, 135) << "no faster than plain reads";
}

struct DiskCase {
  std::string name;
  std::vector<DiskRate> rows;
  double gb_per_sec;
};

// What is nearer to 64 pieces of a MiB counts, not what is faster.
TEST(Hardware, TheDiskCountsAsTheEngineMovesBytes) {
  const std::vector<DiskCase> cases = {
      {"its own row, last of all", {{32, 1024, 2.7, 0}, {8, 4096, 2.9, 0}, {64, 1024, 2.1, 0}}, 2.1},
      {"the deepest of its piece", {{1, 1024, 1.9, 0}, {32, 1024, 2.2, 0}, {8, 1024, 2.5, 0}}, 2.2},
      {"the piece comes before the depth", {{64, 4096, 2.9, 0}, {1, 1024, 1.8, 0}}, 1.8},
      {"less or more by the same ratio: the first", {{64, 512, 1.5, 0}, {64, 2048, 1.6, 0}}, 1.5},
      {"deeper than the engine", {{256, 1024, 2.4, 0}, {8, 1024, 2.3, 0}}, 2.4},
      {"one row", {{1, 64, 0.3, 0}}, 0.3},
  };
  for (const DiskCase& each : cases) {
    EXPECT_NEAR(disk_bytes_per_sec(each.rows) / 1e9, each.gb_per_sec, 1e-9) << each.name;
    HardwareProfile machine;
    machine.disk = {each.rows, each.rows};
    const Rates rates(machine);
    EXPECT_NEAR(1e9 / rates.disk_read_sec(1'000'000'000) / 1e9, each.gb_per_sec, 1e-9) << each.name;
    EXPECT_NEAR(1e9 / rates.disk_write_sec(1'000'000'000) / 1e9, each.gb_per_sec, 1e-9) << each.name;
  }
}

TEST(Hardware, ThePublishedMachineSaysThatItWasNotMeasured) {
  EXPECT_THAT(find_builtin_hardware("t4-208gb")->machine.source, HasSubstr("not measured"));
}

struct Refused {
  std::string yaml;
  std::vector<std::string> messages;
};

TEST(Hardware, EveryProblemIsReportedAtOnceWithItsLine) {
  const std::vector<Refused> cases = {
      {"memory: {gpu_gib: 0}\n", {"h.yaml:1: memory.gpu_gib"}},
      {"memroy: {}\n", {"h.yaml:1: memroy: unknown key", "memory"}},
      {"link:\n  h2d:\n    - {piece_kib: 64, gb_per_sec: 4}\n    - {piece_kib: 64}\n",
       {"h.yaml:4: link.h2d[1].gb_per_sec: missing"}},
      {"link:\n  h2d: []\n", {"h.yaml:2: link.h2d: a table without rows"}},
      {"link:\n  h2d: 5\n", {"h.yaml:2: link.h2d", "not a list"}},
      {"gpu:\n  products:\n    - {format: bitmpa, rows: 1, tflop_per_sec: 1}\n", {"h.yaml:3:", "bitmap"}},
      {"gpu:\n  products:\n    - {format: bitmap, rows: 1, tflop_per_sec: 1}\n",
       {"h.yaml:3: gpu.products: no row for dense weights"}},
      {"gpu:\n  products:\n    - {rows: 1, tflop_per_sec: 1, million_weights: 50}\n"
       "    - {format: bitmap, rows: 1, tflop_per_sec: 1}\n    - {rows: 2, tflop_per_sec: 1}\n",
       {"h.yaml:5: gpu.products[2].million_weights: missing, though other rows"}},
      {"beside:\n  - {lane: h2d, other: h2d, share: 0.5}\n",
       {"h.yaml:2: beside[0]: lane and other are the same"}},
      {"beside:\n  - {lane: h2d, other: pci, share: 1.5}\n",
       {"h.yaml:2: beside[0].other", "beside[0].share"}},
      {"memory: {gpu_gib: -1, cpu_gib: many}\ndisk:\n  read:\n    - {queue_depth: 4}\n",
       {"h.yaml:1: memory.gpu_gib", "h.yaml:1: memory.cpu_gib",
        "h.yaml:4: disk.read[0].gb_per_sec: missing"}},
      {"memory: [1]\n", {"h.yaml:1: memory: a list is not a map"}},
      {"memory: {gpu_gib: 1\n", {"h.yaml:"}},
  };
  for (const Refused& refused : cases) {
    const std::string message = testing::error_of([&] { parse_hardware(refused.yaml, "h.yaml"); }).what();
    for (const std::string& part : refused.messages) EXPECT_THAT(message, HasSubstr(part)) << refused.yaml;
  }
}

}  // namespace
}  // namespace sluice::policy
