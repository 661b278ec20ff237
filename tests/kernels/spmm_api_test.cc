// The C interface of libsluice_spmm on host memory: what it encodes is what the codecs encode, and every
// misuse is a status with a message. Products need a GPU (cuda/spmm_api_cuda_test.cc).
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>

#include "core/build_config.h"
#include "sluice/spmm.h"
#include "tests/kernels/format_support.h"

namespace sluice::kernels {
namespace {

using ::testing::HasSubstr;
using testing::make_weights;
using testing::StoredMatrix;
using testing::to_floats;
using testing::weight_cases;
using testing::WeightCase;

constexpr int kFormats = 11;

std::vector<sluice_spmm_format> formats() {
  std::vector<sluice_spmm_format> all;
  for (int i = 1; i <= kFormats; ++i) all.push_back(static_cast<sluice_spmm_format>(i));
  return all;
}

/// The bytes of an encode through the interface; empty, with a failure, if it fails.
std::vector<std::byte> encode(const sluice_spmm_matrix& matrix, sluice_spmm_dtype source,
                              const void* values) {
  sluice_spmm_encoded* encoded = nullptr;
  EXPECT_EQ(sluice_spmm_encode(&matrix, source, values, 2, &encoded), SLUICE_SPMM_OK)
      << sluice_spmm_last_error();
  std::vector<std::byte> bytes(sluice_spmm_encoded_bytes(encoded));
  if (encoded == nullptr) return bytes;
  EXPECT_EQ(sluice_spmm_encoded_write(encoded, bytes.data(), bytes.size()), SLUICE_SPMM_OK);
  sluice_spmm_encoded_free(encoded);
  return bytes;
}

class SpmmApi : public ::testing::TestWithParam<sluice_spmm_format> {};

TEST_P(SpmmApi, EncodesAndDecodesAsTheCodecs) {
  const std::optional<Encoding> encoding = parse_encoding(sluice_spmm_format_name(GetParam()));
  ASSERT_TRUE(encoding);
  for (const WeightCase& c : weight_cases()) {
    for (const auto& [dtype, ours] :
         {std::pair{SLUICE_SPMM_F16, DType::kF16}, {SLUICE_SPMM_BF16, DType::kBF16}}) {
      SCOPED_TRACE(fmt::format("{} {}", c.name, dtype_name(ours)));
      const std::vector<std::uint16_t> values = make_weights(c, ours);
      const StoredMatrix expected({*encoding, ours}, c.rows, c.cols, values);
      const sluice_spmm_matrix matrix{GetParam(), dtype, c.rows, c.cols};
      const std::vector<std::byte> bytes = encode(matrix, dtype, values.data());
      ASSERT_EQ(bytes, expected.bytes);
      EXPECT_EQ(encode(matrix, SLUICE_SPMM_F32, to_floats(values, ours).data()), expected.bytes);

      std::size_t fewest = 0;
      std::size_t most = 0;
      ASSERT_EQ(sluice_spmm_byte_range(&matrix, &fewest, &most), SLUICE_SPMM_OK);
      EXPECT_GE(bytes.size(), fewest);
      EXPECT_LE(bytes.size(), most);
      EXPECT_EQ(sluice_spmm_check(&matrix, bytes.data(), bytes.size()), SLUICE_SPMM_OK);
      std::vector<std::uint16_t> decoded(values.size());
      ASSERT_EQ(sluice_spmm_decode(&matrix, bytes.data(), bytes.size(), 3, decoded.data()), SLUICE_SPMM_OK);
      EXPECT_EQ(decoded, expected.expand());
    }
  }
}

TEST_P(SpmmApi, RefusesBytesOfAnotherShape) {
  const sluice_spmm_matrix matrix{GetParam(), SLUICE_SPMM_F16, 300, 200};
  const std::vector<float> values(300 * 200, 1.0F);
  const std::vector<std::byte> bytes = encode(matrix, SLUICE_SPMM_F32, values.data());
  const sluice_spmm_matrix larger{GetParam(), SLUICE_SPMM_F16, 600, 1200};
  std::vector<std::uint16_t> decoded(600 * 1200);
  EXPECT_EQ(sluice_spmm_check(&larger, bytes.data(), bytes.size()), SLUICE_SPMM_CORRUPT);
  EXPECT_EQ(sluice_spmm_decode(&larger, bytes.data(), bytes.size(), 1, decoded.data()), SLUICE_SPMM_CORRUPT);
  EXPECT_EQ(sluice_spmm_check(&matrix, bytes.data(), 0), SLUICE_SPMM_CORRUPT);
  EXPECT_THAT(sluice_spmm_last_error(), HasSubstr("0 bytes"));
}

INSTANTIATE_TEST_SUITE_P(Formats, SpmmApi, ::testing::ValuesIn(formats()),
                         [](const auto& each) { return std::string(sluice_spmm_format_name(each.param)); });

TEST(SpmmApiNames, AreThoseOfTheFormatsAndStatuses) {
  for (const sluice_spmm_format format : formats()) {
    sluice_spmm_format parsed = SLUICE_SPMM_TILED_CSL;
    ASSERT_EQ(sluice_spmm_parse_format(sluice_spmm_format_name(format), &parsed), SLUICE_SPMM_OK);
    EXPECT_EQ(parsed, format);
  }
  EXPECT_EQ(kFormats + 1, static_cast<int>(all_encodings().size())) << "a format that C does not know";
  EXPECT_EQ(sluice_spmm_format_name(static_cast<sluice_spmm_format>(0)), nullptr);
  sluice_spmm_format parsed = SLUICE_SPMM_TILED_CSL;
  EXPECT_EQ(sluice_spmm_parse_format("dense", &parsed), SLUICE_SPMM_INVALID_ARGUMENT);
  EXPECT_EQ(sluice_spmm_parse_format("csr", &parsed), SLUICE_SPMM_INVALID_ARGUMENT);
  EXPECT_THAT(sluice_spmm_last_error(), HasSubstr("'csr'"));
  EXPECT_STREQ(sluice_spmm_status_name(SLUICE_SPMM_CORRUPT), "corrupt");
  EXPECT_STREQ(sluice_spmm_status_name(static_cast<sluice_spmm_status>(7)), "unknown");
  EXPECT_EQ(sluice_spmm_version(), kVersion);
}

TEST(SpmmApiMisuse, IsAStatusAndAMessage) {
  std::vector<float> values(64 * 64, 1.0F);
  sluice_spmm_matrix matrix{SLUICE_SPMM_TILED_CSL, SLUICE_SPMM_F16, 64, 64};
  sluice_spmm_encoded* encoded = nullptr;
  const auto refused = [&](const char* what) {
    EXPECT_EQ(sluice_spmm_encode(&matrix, SLUICE_SPMM_F32, values.data(), 1, &encoded),
              SLUICE_SPMM_INVALID_ARGUMENT);
    EXPECT_EQ(encoded, nullptr);
    EXPECT_THAT(sluice_spmm_last_error(), HasSubstr(what));
    matrix = {SLUICE_SPMM_TILED_CSL, SLUICE_SPMM_F16, 64, 64};
  };
  matrix.rows = 0;
  refused("0 x 64");
  matrix.cols = std::int64_t{1} << 40;
  refused("64 x 1099511627776");
  matrix.dtype = SLUICE_SPMM_F32;
  refused("dtype");
  matrix.format = static_cast<sluice_spmm_format>(15);
  refused("15 is no format");
  values[64 * 3 + 5] = std::numeric_limits<float>::infinity();
  refused("row 3");
  values[64 * 3 + 5] = 1e6F;
  refused("row 3");
  values[64 * 3 + 5] = 1;

  EXPECT_EQ(sluice_spmm_encode(nullptr, SLUICE_SPMM_F32, values.data(), 1, &encoded),
            SLUICE_SPMM_INVALID_ARGUMENT);
  EXPECT_EQ(sluice_spmm_encode(&matrix, SLUICE_SPMM_F32, nullptr, 1, &encoded), SLUICE_SPMM_INVALID_ARGUMENT);
  EXPECT_EQ(sluice_spmm_encode(&matrix, SLUICE_SPMM_F32, values.data(), -1, &encoded),
            SLUICE_SPMM_INVALID_ARGUMENT);
  EXPECT_EQ(sluice_spmm_encode(&matrix, SLUICE_SPMM_F32, values.data(), 1, nullptr),
            SLUICE_SPMM_INVALID_ARGUMENT);
  EXPECT_EQ(sluice_spmm_encoded_bytes(nullptr), 0U);
  sluice_spmm_encoded_free(nullptr);
  sluice_spmm_context_free(nullptr);

  ASSERT_EQ(sluice_spmm_encode(&matrix, SLUICE_SPMM_F32, values.data(), 0, &encoded), SLUICE_SPMM_OK);
  const std::size_t bytes = sluice_spmm_encoded_bytes(encoded);
  std::vector<std::byte> to(bytes);
  EXPECT_EQ(sluice_spmm_encoded_write(encoded, to.data(), bytes - 1), SLUICE_SPMM_INVALID_ARGUMENT);
  EXPECT_THAT(sluice_spmm_last_error(), HasSubstr(fmt::format("{} bytes", bytes)));
  sluice_spmm_encoded_free(encoded);
}

TEST(SpmmApiMisuse, NamesTheTileThatIsDamaged) {
  const sluice_spmm_matrix matrix{SLUICE_SPMM_TILED_CSL, SLUICE_SPMM_F16, 128, 128};
  std::vector<float> values(128 * 128, 0.0F);
  values[64] = values[65] = values[66] = values[67] = 1;  // in tile 1
  std::vector<std::byte> bytes = encode(matrix, SLUICE_SPMM_F32, values.data());
  ASSERT_FALSE(bytes.empty());
  std::memcpy(bytes.data() + 4, bytes.data(), 4);  // the same place twice
  EXPECT_EQ(sluice_spmm_check(&matrix, bytes.data(), bytes.size()), SLUICE_SPMM_CORRUPT);
  EXPECT_THAT(sluice_spmm_last_error(), HasSubstr("tile 1"));
}

TEST(SpmmApiErrors, BelongToTheThreadThatMadeThem) {
  EXPECT_EQ(sluice_spmm_parse_format("mine", nullptr), SLUICE_SPMM_INVALID_ARGUMENT);
  const std::string mine = sluice_spmm_last_error();
  std::thread([] {
    EXPECT_STREQ(sluice_spmm_last_error(), "");
    sluice_spmm_format format = SLUICE_SPMM_TILED_CSL;
    EXPECT_EQ(sluice_spmm_parse_format("other", &format), SLUICE_SPMM_INVALID_ARGUMENT);
  }).join();
  EXPECT_EQ(sluice_spmm_last_error(), mine);
}

TEST(SpmmApiContext, IsRefusedWithoutADevice) {
  sluice_spmm_context* context = nullptr;
  const sluice_spmm_status status = sluice_spmm_context_create(4711, nullptr, &context);
  EXPECT_EQ(context, nullptr);
  if constexpr (kWithCuda) {
    EXPECT_TRUE(status == SLUICE_SPMM_DEVICE || status == SLUICE_SPMM_INVALID_ARGUMENT);
  } else {
    EXPECT_EQ(status, SLUICE_SPMM_UNSUPPORTED);
    EXPECT_THAT(sluice_spmm_last_error(), HasSubstr("no CUDA device in this build"));
  }
  EXPECT_EQ(sluice_spmm_run(nullptr, nullptr, nullptr), SLUICE_SPMM_INVALID_ARGUMENT);
}

}  // namespace
}  // namespace sluice::kernels
