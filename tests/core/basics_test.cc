#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "core/dtype.h"
#include "core/error.h"
#include "core/model/spec.h"
#include "core/units.h"

namespace sluice {
namespace {

TEST(Half, RoundTripsEveryValue) {
  for (std::uint32_t bits = 0; bits < 0x10000U; ++bits) {
    const Half h{static_cast<std::uint16_t>(bits)};
    const float f = to_float(h);
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(to_float(to_half(f))));
    } else {
      EXPECT_EQ(to_half(f), h) << bits;
    }
  }
}

TEST(Half, RoundsToNearestEven) {
  EXPECT_EQ(to_half(1.0F + 0x1p-11F).bits, 0x3C00);  // tie, to even
  EXPECT_EQ(to_half(1.0F + 0x1.8p-10F).bits, 0x3C02);
  EXPECT_EQ(to_half(65519.0F).bits, 0x7BFF);
  EXPECT_EQ(to_half(65520.0F).bits, 0x7C00);
  EXPECT_EQ(to_half(0x1p-25F).bits, 0x0000);
  EXPECT_EQ(to_half(-0x1.8p-25F).bits, 0x8001);
}

TEST(BFloat16, RoundTripsEveryValue) {
  for (std::uint32_t bits = 0; bits < 0x10000U; ++bits) {
    const BFloat16 b{static_cast<std::uint16_t>(bits)};
    const float f = to_float(b);
    if (!std::isnan(f)) {
      EXPECT_EQ(to_bfloat16(f), b) << bits;
    }
  }
}

TEST(ParseBytes, ReadsUnitsAndRefusesTheRest) {
  EXPECT_EQ(parse_bytes("16GiB", "x"), 16_GiB);
  EXPECT_EQ(parse_bytes("1.5 MiB", "x"), 1536_KiB);
  EXPECT_EQ(parse_bytes("4096", "x"), 4096);
  EXPECT_EQ(parse_bytes("0", "x"), 0);
  EXPECT_EQ(parse_bytes("2GB", "x"), 2000000000);
  for (const char* bad : {"", "GiB", "-1", "1XB", "1e30", "nan"}) {
    EXPECT_THROW(parse_bytes(bad, "--gpu-memory"), Error) << bad;
  }
}

TEST(Error, CarriesTheRemedy) {
  const Error e(Code::kOutOfMemory, "need 2", "lower x");
  EXPECT_STREQ(e.what(), "need 2; lower x");
  EXPECT_EQ(exit_status(e.code()), 5);
}

TEST(Error, AssertThrowsInEveryBuild) { EXPECT_THROW(SLUICE_ASSERT(1 + 1 == 3), Error); }

// Parameter counts of facebook/opt-*, from the table in the OPT study (vocabulary padding rows included).
TEST(ModelTensors, CountsOptParameters) {
  const auto opt = [](std::int64_t layers, std::int64_t hidden, std::int64_t heads) {
    ModelSpec spec;
    spec.num_layers = layers;
    spec.hidden_dim = spec.embed_dim = hidden;
    spec.ffn_dim = 4 * hidden;
    spec.num_heads = spec.num_kv_heads = heads;
    spec.head_dim = hidden / heads;
    spec.vocab_size = 50272;
    spec.max_positions = 2048;
    return spec;
  };
  EXPECT_EQ(num_parameters(opt(12, 768, 12)), 125239296);
  EXPECT_EQ(num_parameters(opt(48, 7168, 56)), 29974540288);
  EXPECT_EQ(num_parameters(opt(96, 12288, 96)), 174604468224);
  ModelSpec small = opt(24, 1024, 16);
  small.embed_dim = 512;
  small.pre_norm = small.final_norm = false;
  EXPECT_EQ(num_parameters(small), 331196416);
}

}  // namespace
}  // namespace sluice
