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

constexpr int kFormats = 12;

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

struct LargeShape {
  std::int64_t rows, cols;
  const char* message;  ///< nullptr: taken
};

TEST(SpmmApiMisuse, SizesThatWrapAroundAreRefused) {
  constexpr std::int64_t k31 = std::int64_t{1} << 31;
  constexpr std::int64_t k24 = std::int64_t{1} << 24;
  const LargeShape shapes[] = {
      {k31 - 1, k31 - 1, "a matrix of 2147483647 x 2147483647 has 4611686014132420609 elements"},
      {k24, k24 + 1, "has 281474993487872 elements, more than 2^48"},
      {k31, 1, "a matrix of 2147483648 x 1; "},
      {std::int64_t{1} << 62, 4, "a matrix of 4611686018427387904 x 4"},
      {std::numeric_limits<std::int64_t>::min(), -1, "a matrix of -9223372036854775808 x -1"},
      {k24, k24, nullptr},
      {k31 - 1, 1, nullptr},
      {1, k31 - 1, nullptr},
  };
  for (const sluice_spmm_format format : formats()) {
    for (const LargeShape& shape : shapes) {
      SCOPED_TRACE(fmt::format("{} {} x {}", sluice_spmm_format_name(format), shape.rows, shape.cols));
      const sluice_spmm_matrix matrix{format, SLUICE_SPMM_BF16, shape.rows, shape.cols};
      const float value = 1;
      std::size_t fewest = 0;
      std::size_t most = 0;
      const sluice_spmm_status status = sluice_spmm_byte_range(&matrix, &fewest, &most);
      if (shape.message == nullptr) {
        EXPECT_EQ(status, SLUICE_SPMM_OK) << sluice_spmm_last_error();
        EXPECT_GT(fewest, 0U);
        EXPECT_LE(fewest, most);
        EXPECT_LT(most, std::size_t{1} << 54) << "bytes are close to those of the elements";
        EXPECT_EQ(sluice_spmm_check(&matrix, &value, sizeof(value)), SLUICE_SPMM_CORRUPT);
        continue;
      }
      EXPECT_EQ(status, SLUICE_SPMM_INVALID_ARGUMENT);
      EXPECT_THAT(sluice_spmm_last_error(), HasSubstr(shape.message));
      sluice_spmm_encoded* encoded = nullptr;
      EXPECT_EQ(sluice_spmm_encode(&matrix, SLUICE_SPMM_F32, &value, 1, &encoded),
                SLUICE_SPMM_INVALID_ARGUMENT);
      EXPECT_EQ(encoded, nullptr);
      EXPECT_EQ(sluice_spmm_check(&matrix, &value, sizeof(value)), SLUICE_SPMM_INVALID_ARGUMENT);
    }
  }
}

struct LargeProduct {
  std::int64_t tokens, x_stride, y_stride, residual_stride;
  std::size_t workspace_bytes;
  const char* message;
};

// The context is looked at last, so these need no device.
TEST(SpmmApiMisuse, ProductsWhoseOperandsWrapAroundAreRefused) {
  constexpr std::int64_t k31 = std::int64_t{1} << 31;
  constexpr std::int64_t k62 = std::int64_t{1} << 62;
  const LargeProduct products[] = {
      {k31, 0, 0, 0, 0, "2147483648 tokens"},
      {-1, 0, 0, 0, 0, "-1 tokens"},
      {std::numeric_limits<std::int64_t>::max(), 0, 0, 0, 0, "9223372036854775807 tokens"},
      {2, k62, 0, 0, 0, "x: 2 rows at a distance of 4611686018427387904 elements"},
      {k31 - 1, 0, 2 * k31, 0, 0, "y: 2147483647 rows at a distance of 4294967296 elements"},
      {3, 0, 0, k62, 0, "residual: 3 rows at a distance"},
      {2, -1, 0, 0, 0, "x_stride is -1, and rows have 64 elements"},
      {2, 0, 63, 0, 0, "y_stride is 63"},
      {2, 0, 0, 0, std::numeric_limits<std::size_t>::max(), "a workspace of 18446744073709551615 bytes"},
      {k31 - 1, 0, 0, 0, 0, "context is null"},
      {1, k62, 0, 0, 0, "context is null"},
      {2, k62 - 65, 0, 0, 0, "context is null"},
      {0, k62, 0, 0, 0, "context is null"},
  };
  const sluice_spmm_matrix matrix{SLUICE_SPMM_INT8, SLUICE_SPMM_F16, 64, 64};
  std::size_t weight_bytes = 0;
  std::size_t most = 0;
  ASSERT_EQ(sluice_spmm_byte_range(&matrix, &weight_bytes, &most), SLUICE_SPMM_OK);
  alignas(256) std::byte memory[256];
  for (const LargeProduct& p : products) {
    sluice_spmm_product product{};
    product.struct_bytes = sizeof(product);
    product.weight = product.x = product.residual = memory;
    product.y = product.workspace = memory;
    product.weight_bytes = weight_bytes;
    product.tokens = p.tokens;
    product.x_stride = p.x_stride;
    product.y_stride = p.y_stride;
    product.residual_stride = p.residual_stride;
    product.workspace_bytes = p.workspace_bytes;
    EXPECT_EQ(sluice_spmm_run(nullptr, &matrix, &product), SLUICE_SPMM_INVALID_ARGUMENT);
    EXPECT_THAT(sluice_spmm_last_error(), HasSubstr(p.message));
  }
  std::size_t bytes = 0;
  const char* name = nullptr;
  EXPECT_EQ(sluice_spmm_workspace_bytes(nullptr, &matrix, weight_bytes, k31, &bytes),
            SLUICE_SPMM_INVALID_ARGUMENT);
  EXPECT_THAT(sluice_spmm_last_error(), HasSubstr("2147483648 tokens"));
  EXPECT_EQ(sluice_spmm_kernel_name(nullptr, &matrix, std::numeric_limits<std::size_t>::max(), 1, &name),
            SLUICE_SPMM_CORRUPT);
  EXPECT_THAT(sluice_spmm_last_error(), HasSubstr("with 18446744073709551615 bytes"));
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
