// Which hardware profile a command counts with.
#include "apps/profile/find_profile.h"

#include <fstream>
#include <optional>

#include <gmock/gmock.h>

#include "core/error.h"
#include "tests/apps/temp_dir.h"
#include "tests/support/scoped_env.h"

namespace sluice::apps {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

/// A configuration folder of its own, in place of the one that tests cannot see into.
class FindProfileTest : public ::testing::Test {
 protected:
  void write_own(const std::string& yaml) {
    std::filesystem::create_directories(dir_ / "sluice");
    std::ofstream(user_profile_path()) << yaml;
  }

  /// What is said on standard error meanwhile.
  template <class Body>
  static std::string said(const Body& body) {
    ::testing::internal::CaptureStderr();
    body();
    return ::testing::internal::GetCapturedStderr();
  }

  const TempDir dir_;
  const sluice::testing::ScopedEnv config_{"XDG_CONFIG_HOME", std::string(dir_ / "")};
};

TEST_F(FindProfileTest, TheUsersOwnLiesInTheConfigurationFolder) {
  EXPECT_EQ(user_profile_path(), std::filesystem::path(dir_ / "sluice/hardware.yaml"));
  using sluice::testing::ScopedEnv;
  const ScopedEnv home("HOME", "/home/somebody");
  {
    const ScopedEnv relative("XDG_CONFIG_HOME", "relative");
    EXPECT_EQ(user_profile_path(), "/home/somebody/.config/sluice/hardware.yaml") << "as the standard has it";
  }
  const ScopedEnv unset("XDG_CONFIG_HOME", std::nullopt);
  EXPECT_EQ(user_profile_path(), "/home/somebody/.config/sluice/hardware.yaml");
  const ScopedEnv homeless("HOME", std::nullopt);
  EXPECT_EQ(user_profile_path(), "");
  EXPECT_FALSE(user_profile("cpu"));
}

TEST_F(FindProfileTest, TheUsersOwnIsTakenIfItIsOfThisDevice) {
  EXPECT_FALSE(user_profile("cpu, 2 threads"));
  write_own("machine: {device: \"cpu, 2 threads\", name: desk}\n");
  const auto own = user_profile("cpu, 2 threads");
  ASSERT_TRUE(own);
  EXPECT_EQ(own->hardware.machine.name, "desk");
  EXPECT_EQ(own->origin, std::string(dir_ / "sluice/hardware.yaml"));
  EXPECT_TRUE(user_profile("cpu, 1 threads")) << "a run takes as many threads as its user says";
  write_own("machine: {device: \"NVIDIA H100 80GB HBM3, sm_90, 79.19 GiB\"}\n");
  EXPECT_TRUE(user_profile("NVIDIA H100 80GB HBM3, sm_90, 79.10 GiB"));
}

TEST_F(FindProfileTest, TheUsersOwnOfAnotherMachineIsWarnedOfAndLeftAlone) {
  write_own("machine: {device: \"some GPU\"}\n");
  const std::string warning = said([] { EXPECT_FALSE(user_profile("cpu, 2 threads")); });
  EXPECT_THAT(warning,
              HasSubstr("another machine: its device is 'some GPU', this one's is 'cpu, 2 threads'"));
  EXPECT_THAT(warning, HasSubstr("not used"));
}

TEST_F(FindProfileTest, ANamedProfileOfAnotherMachineIsWarnedOfAndTaken) {
  std::ofstream(dir_ / "other.yaml") << "machine: {device: \"some GPU\"}\nmemory: {gpu_gib: 3}\n";
  std::optional<KnownProfile> named;
  const std::string warning = said([&] { named = named_profile(dir_ / "other.yaml", "cpu, 2 threads"); });
  EXPECT_EQ(named->hardware.memory.gpu_gib, 3);
  EXPECT_THAT(warning,
              HasSubstr("another machine: its device is 'some GPU', this one's is 'cpu, 2 threads'"));
  EXPECT_THAT(warning, Not(HasSubstr("not used")));
  EXPECT_THAT(warning, HasSubstr("memory.cpu_gib is missing; 16 is used"));
}

// Every part, in about ten seconds.
TEST_F(FindProfileTest, AShortMeasurementLeavesNoPartAtItsDefault) {
  const policy::HardwareProfile measured = measured_profile("cpu", dir_ / "").hardware;
  const policy::HardwareProfile none;
  EXPECT_TRUE(measured.memory.gpu_is_host);
  EXPECT_NE(measured.memory.cpu_gib, none.memory.cpu_gib);
  EXPECT_NE(measured.link.h2d[0].gb_per_sec, none.link.h2d[0].gb_per_sec);
  EXPECT_NE(measured.cpu.read_gb_per_sec, none.cpu.read_gb_per_sec);
  EXPECT_NE(measured.disk.read[0].gb_per_sec, none.disk.read[0].gb_per_sec);
  EXPECT_NE(measured.overheads.gpu_usec, none.overheads.gpu_usec);
  EXPECT_NE(measured.gpu.products[0].tflop_per_sec, none.gpu.products[0].tflop_per_sec);
}

TEST_F(FindProfileTest, WhatCannotBeReadIsNamed) {
  write_own("memory: {gpu_gib: none}\n");
  try {
    user_profile("cpu");
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("sluice/hardware.yaml:1: memory.gpu_gib"));
  }
  EXPECT_THROW(named_profile("laptop-9gb", ""), Error);
  EXPECT_EQ(named_profile("laptop-8gb", "").origin, "--hardware laptop-8gb");
}

}  // namespace
}  // namespace sluice::apps
