// Stores whose encoded matrices were damaged before their checksums were made: a kernel that followed them
// would read or write where it may not, so a run refuses them at its start, wherever the matrix rests.
#include <cstring>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/store/checksum.h"
#include "core/store/manifest.h"
#include "tests/e2e/e2e.h"
#include "tests/e2e/small_model.h"
#include "tests/fakes/temp_folder.h"
#include "tests/support/error_of.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using sluice::testing::error_of;
using ::testing::HasSubstr;

constexpr const char* kSparse = "tiny-opt-books-sparse80";
constexpr const char* kVictim = "decoder.layers.1.fc1.weight";

/// A copy of the trained sparse model's store, one of whose tensors can be rewritten with a true checksum.
class DamagedStore {
 public:
  explicit DamagedStore(Encoding encoding) {
    kernels::FormatConfig formats;
    formats.format = encoding;
    fs::copy(testing::store_of(kSparse, formats), store_, fs::copy_options::recursive);
    manifest_ = read_manifest(store_);
  }

  const fs::path& path() const { return store_; }
  Manifest& manifest() { return manifest_; }
  StoredTensor& tensor(std::string_view name) {
    for (StoredTensor& tensor : manifest_.tensors) {
      if (tensor.spec.name == name) return tensor;
    }
    throw Error(Code::kNotFound, std::string(name));
  }
  std::vector<std::byte> bytes_of(const StoredTensor& tensor) const {
    std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.bytes));
    std::ifstream in(file_of(tensor), std::ios::binary);
    in.seekg(tensor.offset);
    in.read(reinterpret_cast<char*>(bytes.data()), tensor.bytes);
    return bytes;
  }
  void rewrite(StoredTensor& tensor, const std::vector<std::byte>& bytes) {
    std::fstream out(file_of(tensor), std::ios::binary | std::ios::in | std::ios::out);
    out.seekp(tensor.offset);
    out.write(reinterpret_cast<const char*>(bytes.data()), tensor.bytes);
    tensor.checksum = store_checksum(bytes);
    write_manifest();
  }
  void write_manifest() const { std::ofstream(store_ / "manifest.json") << manifest_to_json(manifest_); }

 private:
  fs::path file_of(const StoredTensor& tensor) const {
    return store_ / manifest_.files.at(static_cast<std::size_t>(tensor.file));
  }

  const testing::TempFolder folder_;
  const fs::path store_ = folder_.path() / "store";
  Manifest manifest_;
};

/// A matrix to be changed; `num_tiles` is 0 for a format without tiles.
struct TiledBytes {
  std::vector<std::byte>& bytes;
  std::int64_t num_tiles;

  void put(std::int64_t at, auto value) const {
    ASSERT_LE(at + std::ssize(std::as_bytes(std::span(&value, 1))), std::ssize(bytes));
    std::memcpy(bytes.data() + at, &value, sizeof(value));
  }
  /// Entry `index` of the table behind the tiles, which counts in 16 bytes.
  std::uint32_t start(std::int64_t index) const {
    std::uint32_t units = 0;
    std::memcpy(&units, bytes.data() + entry(index), sizeof(units));
    return units;
  }
  void set_start(std::int64_t index, std::uint32_t units) const { put(entry(index), units); }

 private:
  std::int64_t entry(std::int64_t index) const {
    return std::ssize(bytes) - tile_table_bytes(num_tiles) + 4 * index;
  }
};

struct Damage {
  const char* name;
  Encoding encoding;
  void (*apply)(const TiledBytes& matrix);
  const char* place;  ///< as the message names it, behind the tensor
};

void table_goes_back(const TiledBytes& matrix) { matrix.set_start(1, matrix.start(2) + 1); }
void last_tile_ends_early(const TiledBytes& matrix) {
  matrix.set_start(matrix.num_tiles, matrix.start(matrix.num_tiles) - 1);
}
void last_tile_ends_late(const TiledBytes& matrix) {
  matrix.set_start(matrix.num_tiles, matrix.start(matrix.num_tiles) + 1);
}

std::vector<Damage> damages() {
  std::vector<Damage> all = {
      // The upper half of a word is its byte offset in a tile of 16 KiB.
      {"word_goes_beyond_the_tile", Encoding::kTiledCsl,
       [](const TiledBytes& matrix) { matrix.put(2, std::uint16_t{0xFFFE}); },
       "tile 0 of 32: byte offset 65534 is none of an element"},
      {"tile_is_of_an_unknown_kind", Encoding::kBankCsl,
       [](const TiledBytes& matrix) { matrix.put(0, std::uint8_t{9}); }, "tile 0 of 16: kind 9 is unknown"},
      {"overflow_is_longer_than_the_tile", Encoding::kBankCsl,
       [](const TiledBytes& matrix) { matrix.put(4, std::uint16_t{0xFFFC}); }, "tile 0 of 16: "},
      {"lists_start_beyond_the_unit", Encoding::kPairs24,
       [](const TiledBytes& matrix) { matrix.put(0, std::uint16_t{0xFFFF}); },
       "unit 0 of 16: the lists of strip 0 start at byte 262140"},
      // The metadata of strip 0 stand behind its pairs and jumps.
      {"metadata_do_not_rise", Encoding::kPairs24,
       [](const TiledBytes& matrix) { matrix.put(16 + 192, std::uint32_t{0}); },
       "unit 0 of 16: the quad at row 0, column 0 "},
      {"mask_has_more_bits_than_values", Encoding::kBitmap,
       [](const TiledBytes& matrix) { matrix.put(0, ~std::uint64_t{0}); }, "chunk 0 of 64: "},
      {"mask_has_fewer_bits_than_values", Encoding::kBitmapInt4,
       [](const TiledBytes& matrix) {
         for (int i = 0; i < 64; ++i) matrix.put(8 * i, std::uint64_t{0});
       },
       "chunk 0 of 64: "},
      // The scales stand behind 512 bytes of masks.
      {"scale_is_infinite", Encoding::kBitmapInt8,
       [](const TiledBytes& matrix) { matrix.put(512, std::uint16_t{0x7C00}); },
       "chunk 0 of 64: segment 0: its scale inf"},
      {"scale_is_not_a_number", Encoding::kBitmapInt4,
       [](const TiledBytes& matrix) { matrix.put(514, std::uint16_t{0x7E00}); },
       "chunk 0 of 64: segment 1: its scale nan"},
      // Parameters stand behind the codes of 128 rows of 256.
      {"scale_is_not_a_number", Encoding::kInt8,
       [](const TiledBytes& matrix) { matrix.put(128 * 256, std::uint16_t{0x7E00}); },
       "block 0, row 0: group 0: its scale nan"},
      {"minimum_is_infinite", Encoding::kInt4G64,
       [](const TiledBytes& matrix) { matrix.put(128 * 128 + 2, std::uint16_t{0xFC00}); },
       "block 0, row 0: group 0: its minimum is -inf"},
  };
  for (const Encoding encoding : all_encodings()) {
    if (has_fixed_size(encoding)) continue;
    all.push_back({"table_goes_back", encoding, table_goes_back, "tile 1 of "});
    all.push_back({"last_tile_ends_early", encoding, last_tile_ends_early, "its "});
    all.push_back({"last_tile_ends_late", encoding, last_tile_ends_late, "tile "});
  }
  return all;
}

class DamagedFormat : public ::testing::TestWithParam<Damage> {};

TEST_P(DamagedFormat, IsRefusedAtTheStartWhereverTheMatrixRests) {
  DamagedStore store(GetParam().encoding);
  StoredTensor& victim = store.tensor(kVictim);
  std::vector<std::byte> bytes = store.bytes_of(victim);
  GetParam().apply({bytes, num_tiles(victim.format.encoding, victim.spec.rows, victim.spec.cols)});
  store.rewrite(victim, bytes);
  offload::ModelSource source;
  source.store = store.path();
  for (const auto& percents :
       {std::vector<int>{100, 0, 100, 0, 100, 0}, {0, 100, 100, 0, 100, 0}, {0, 0, 100, 0, 100, 0}}) {
    SCOPED_TRACE(fmt::format("{} % on the GPU, {} % in memory", percents[0], percents[1]));
    int num_steps = 0;
    offload::RunHooks hooks;
    hooks.before_step = [&](const policy::Step&) { ++num_steps; };
    offload::Request request;
    request.prompt_ids = testing::prompt_of(5, 4096, 1);
    request.max_new_tokens = 2;
    const Error error = error_of([&] {
      testing::run_requests(source, testing::placed(percents, 1, 1, false), {request}, nullptr, &hooks);
    });
    EXPECT_EQ(error.code(), Code::kCorrupt) << error.what();
    EXPECT_THAT(error.what(), HasSubstr(fmt::format("tensor {}: {}", kVictim, GetParam().place)));
    EXPECT_EQ(num_steps, 0) << "before the first step";
  }
}

INSTANTIATE_TEST_SUITE_P(All, DamagedFormat, ::testing::ValuesIn(damages()), [](const auto& damage) {
  return fmt::format("{}_{}", encoding_name(damage.param.encoding), damage.param.name);
});

// What was rewritten is fine otherwise: the same store with the bytes that it had runs.
TEST(DamagedFormats, AreTheOnlyReasonToRefuse) {
  DamagedStore store(Encoding::kBitmap);
  StoredTensor& victim = store.tensor(kVictim);
  store.rewrite(victim, store.bytes_of(victim));
  offload::ModelSource source;
  source.store = store.path();
  offload::Request request;
  request.prompt_ids = testing::prompt_of(5, 4096, 1);
  request.max_new_tokens = 2;
  const auto placement = testing::placed({0, 0, 100, 0, 100, 0}, 1, 1, false);
  EXPECT_EQ(testing::run_requests(source, placement, {request}).results.size(), 1U);
}

TEST(FormatOfATensor, ThatIsNoMatrixOfALayerIsDenseOrRefused) {
  for (const char* name : {"decoder.embed_tokens.weight", "decoder.embed_positions.weight"}) {
    DamagedStore store(Encoding::kDense);
    StoredTensor& tensor = store.tensor(name);
    tensor.format.encoding = Encoding::kBitmap;  // which may have as many bytes as the dense tensor
    store.write_manifest();
    ASSERT_NO_THROW(read_manifest(store.path()));
    offload::ModelSource source;
    source.store = store.path();
    offload::EngineOptions options;
    options.placement = testing::placed({100, 0, 100, 0, 100, 0}, 1, 1, false);
    options.workload.add_request(16, 8);
    const Error error = error_of([&] { offload::Engine(source, nullptr, options); });
    EXPECT_EQ(error.code(), Code::kUnsupported);
    EXPECT_THAT(error.what(), HasSubstr(fmt::format("tensor '{}' is bitmap_f16", name)));
  }
}

}  // namespace
}  // namespace sluice
