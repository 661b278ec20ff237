#include <CLI/App.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/bench_common.h"
#include "apps/commands.h"
#include "core/build_config.h"
#include "core/error.h"
#include "core/units.h"

namespace sluice::apps {
namespace {

bool can_measure() { return kBuildType != "Debug" && kSanitize.empty(); }

/// What `sluice bench <arguments>` prints.
std::string bench(const std::string& arguments) {
  CLI::App app;
  add_bench_attention(app);
  add_bench_linear(app);
  add_bench_formats(app);
  add_bench_spmm(app);
  ::testing::internal::CaptureStdout();
  try {
    app.parse(arguments);
  } catch (...) {
    ::testing::internal::GetCapturedStdout();
    throw;
  }
  return ::testing::internal::GetCapturedStdout();
}

TEST(BenchCommon, AlternatesAndSortsTheRatesOfEachContender) {
  std::string order;
  int calls = 0;
  const std::vector<Rates> rates = alternate(3, {[&] {
                                                   order += 'a';
                                                   return ++calls * 1e6;
                                                 },
                                                 [&] {
                                                   order += 'b';
                                                   return 0.0;
                                                 }});
  EXPECT_EQ(order, "abababab");  // one warm-up round, three measured
  ASSERT_EQ(rates.size(), 2U);
  EXPECT_EQ(rates[0].values.size(), 3U);
  EXPECT_LE(rates[0].low(), rates[0].median());
  EXPECT_LE(rates[0].median(), rates[0].high());
  EXPECT_EQ(rates[1].high(), 0.0);
}

TEST(BenchCommon, WorkingSetIsTheUsersOrFarBeyondTheCache) {
  EXPECT_EQ(working_set_bytes("64MiB"), 64_MiB);
  EXPECT_EQ(working_set_bytes("1"), 1_MiB);
  EXPECT_GE(working_set_bytes(""), 1_GiB);
  EXPECT_GE(working_set_bytes(""), 8 * last_level_cache_bytes());
  EXPECT_THROW(working_set_bytes("lots"), Error);
}

TEST(BenchCommon, RefusesMoreMemoryThanThereIs) {
  try {
    const WorkingMemory memory(std::int64_t{1} << 50, 1);
    ADD_FAILURE() << "a PiB was given";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kOutOfMemory);
  }
}

TEST(BenchKernels, PrintRatesAndSharesOfTheMachinesRates) {
  if (!can_measure()) {
    EXPECT_THROW(bench("linear --working-set 8MiB"), Error);
    EXPECT_THROW(bench("attention --working-set 8MiB"), Error);
    EXPECT_THROW(bench("formats --out 256 --in 256"), Error);
    return;
  }
  using ::testing::HasSubstr;
  const std::string linear = bench(
      "linear --working-set 8MiB --in 256 --out 512 --few-rows 1 --many-rows 20 --rounds 1 --threads 2");
  EXPECT_THAT(linear, HasSubstr("working set 8.00 MiB: 32 matrices of 512 x 256, dense_f16"));
  EXPECT_THAT(linear, HasSubstr("linear,    1 row "));
  EXPECT_THAT(linear, HasSubstr("% of the read rate"));
  EXPECT_THAT(linear, HasSubstr("linear,   20 rows "));
  const std::string attention = bench(
      "attention --working-set 8MiB --heads 4 --group 1 --group 2 --positions 100 --prefill 70 --rounds 1");
  EXPECT_THAT(attention, HasSubstr("fp16 4 KV heads of 128, 1 queries each, 32 sequences of 100"));
  EXPECT_THAT(attention, HasSubstr("fp16 2 KV heads of 128, 2 queries each, 64 sequences of 100"));
  EXPECT_THAT(attention, HasSubstr("one prompt of 70"));
  const std::string formats =
      bench("formats --out 512 --in 300 --formats tiled_csl,int8 --sparsity 0.5,0.9 --rounds 1 --threads 2");
  EXPECT_THAT(formats, HasSubstr("a matrix of 512 x 300; GB/s of dense fp16 per core"));
  EXPECT_THAT(formats, ::testing::ContainsRegex("tiled_csl +0\\.50 +1\\.99"));
  EXPECT_THAT(formats, ::testing::ContainsRegex("tiled_csl +0\\.90 +0\\.39"));
  EXPECT_THAT(formats, ::testing::ContainsRegex("int8 +0\\.00 +1\\.0"));
}

TEST(BenchKernels, RefuseOptionsThatMakeNoSense) {
  for (const char* arguments :
       {"linear --in 0", "linear --format csr", "linear --few-rows 0",
        "linear --working-set 1MiB --in 4096 --out 4096", "attention --kv-format int2",
        "attention --heads 6 --group 4 --working-set 8MiB", "attention --working-set 1MiB --positions 100000",
        "attention --rounds 0", "formats --formats csr", "formats --sparsity 1.5", "spmm --shapes 7168",
        "spmm --formats csr", "spmm --device cpu"}) {
    EXPECT_THROW(bench(arguments), Error) << arguments;
  }
}

}  // namespace
}  // namespace sluice::apps
