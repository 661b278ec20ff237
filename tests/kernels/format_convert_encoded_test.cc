// Conversions into every format: the stored bytes are those of the matrix encoded in one piece, whatever the
// pieces, the threads and the interruptions on the way.
#include <cmath>
#include <cstring>
#include <set>
#include <stop_token>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/store/read_tensor.h"
#include "kernels/format/encode_pipeline.h"
#include "kernels/format/format.h"
#include "tests/kernels/checkpoint_fixture.h"
#include "tests/kernels/convert_and_die.h"

namespace sluice::kernels {
namespace {

using testing::append_element;
using testing::content_of;
using testing::convert_and_die;
using testing::error_of;
using ::testing::HasSubstr;
using testing::ScratchFolder;
using testing::TinyCheckpoint;
using testing::write_checkpoint;

/// Six in ten elements are zero, one in a hundred of those a negative zero.
float sparse_value(const std::string& tensor, std::int64_t element) {
  auto hash = static_cast<std::uint64_t>(element) * 0x9E3779B97F4A7C15U + tensor.size() * 0xBF58476D1CE4E5B9U;
  hash ^= hash >> 29;
  hash = hash * 0x94D049BB133111EBU >> 20;
  if (hash % 10 < 6) return hash % 1000 < 6 ? -0.0F : 0.0F;
  return static_cast<float>(static_cast<std::int64_t>(hash / 10 % 4001) - 2000) / 1537.0F + 1e-4F;
}

TinyCheckpoint sparse_checkpoint(DType dtype = DType::kF16) {
  TinyCheckpoint checkpoint;
  checkpoint.spec.num_layers = 1;
  checkpoint.value = sparse_value;
  checkpoint.dtype = [dtype](const std::string&) { return dtype; };
  return checkpoint;
}

/// Matrices of several tiles each way, in every format, that no tile divides.
TinyCheckpoint wide_checkpoint() {
  TinyCheckpoint checkpoint = sparse_checkpoint();
  checkpoint.spec.num_heads = checkpoint.spec.num_kv_heads = 2;
  checkpoint.spec.head_dim = 88;
  checkpoint.spec.hidden_dim = 176;
  checkpoint.spec.ffn_dim = 523;
  checkpoint.spec.vocab_size = 31;
  return checkpoint;
}

/// The tensor as the 16-bit type that it is stored with.
std::vector<std::uint16_t> values_of(const TinyCheckpoint& checkpoint, const TensorSpec& tensor) {
  const DType dtype = checkpoint.dtype(tensor.name) == DType::kBF16 ? DType::kBF16 : DType::kF16;
  std::string bytes;
  for (std::int64_t i = 0; i < tensor.rows * tensor.cols; ++i) {
    append_element(bytes, dtype, checkpoint.value(tensor.name, i));
  }
  std::vector<std::uint16_t> values(bytes.size() / 2);
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

/// Pruned by its rule in one piece.
std::vector<std::uint16_t> pruned(const PruneRule& rule, const TensorSpec& tensor,
                                  std::vector<std::uint16_t> values) {
  MagnitudeHistogram histogram;
  histogram.add(values);
  prune_rows(rule, tensor.name, 0, tensor.cols, histogram.threshold(rule.sparsity), values);
  return values;
}

double relative_error(WeightFormat format, const TensorSpec& tensor, std::span<const std::byte> stored,
                      std::span<const std::uint16_t> values) {
  std::vector<float> decoded(values.size());
  decode_matrix({format, stored, tensor.rows, tensor.cols}, decoded);
  double lost = 0, all = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto wanted = static_cast<double>(format.dtype == DType::kF16 ? to_float(Half{values[i]})
                                                                        : to_float(BFloat16{values[i]}));
    lost += (decoded[i] - wanted) * (decoded[i] - wanted);
    all += wanted * wanted;
  }
  return all > 0 ? std::sqrt(lost / all) : 0;
}

/// Every tensor is stored as `formats` says, and the manifest says of it what is true.
void expect_store(const std::filesystem::path& store, const TinyCheckpoint& checkpoint,
                  const FormatConfig& formats) {
  const Manifest manifest = read_manifest(store);
  for (const StoredTensor& tensor : manifest.tensors) {
    SCOPED_TRACE(tensor.spec.name);
    const MatrixRule rule = rule_for(formats, manifest.spec, tensor.spec);
    const bool is_bf16 = checkpoint.dtype(tensor.spec.name) == DType::kBF16;
    ASSERT_EQ(tensor.format, (WeightFormat{rule.encoding, is_bf16 ? DType::kBF16 : DType::kF16}));
    EXPECT_EQ(can_be_encoded(tensor.spec) ? formats.format : Encoding::kDense, rule.encoding);
    const std::vector<std::uint16_t> values =
        pruned(rule.prune, tensor.spec, values_of(checkpoint, tensor.spec));
    // Dense values keep the sign of a zero.
    const std::vector<std::byte> found = read_stored_tensor(store, manifest, tensor);
    const auto dense = std::as_bytes(std::span(values));
    EXPECT_TRUE(found == (rule.encoding == Encoding::kDense
                              ? std::vector<std::byte>(dense.begin(), dense.end())
                              : encode_matrix(tensor.spec, tensor.format, values)));
    EXPECT_EQ(tensor.stats.zeros,
              std::ranges::count_if(values, [](std::uint16_t value) { return (value & 0x7FFFU) == 0; }));
    const double error = relative_error(tensor.format, tensor.spec, found, values);
    EXPECT_NEAR(tensor.stats.error, error, 1e-9 * error);
    EXPECT_EQ(tensor.stats.error > 0, !is_lossless(rule.encoding));
    if (rule.encoding == Encoding::kDense) continue;
    EXPECT_NO_THROW(codec_of(rule.encoding)
                        .check({tensor.format, found, tensor.spec.rows, tensor.spec.cols}, tensor.spec.name));
  }
}

/// How a conversion is cut up.
struct Pieces {
  std::int64_t bytes;
  int num_encoders;
};

void convert_in_pieces(const std::filesystem::path& model, const std::filesystem::path& store,
                       const FormatConfig& formats, Pieces pieces) {
  SourceOptions options;
  options.formats = formats;
  const CheckpointSource source = open_source(model, options);
  StoreWriter writer(StoreLock::acquire(store), source.plan, ExistingStore::kRefuse);
  PipelineOptions pipeline;
  pipeline.piece_bytes = pieces.bytes;
  pipeline.num_encoders = pieces.num_encoders;
  pipeline.num_pieces = pieces.num_encoders + 1;
  pipeline.open_reader = [&] { return open_checkpoint(source.path); };
  run_encode_pipeline(source, writer, pipeline);
  writer.commit();
}

class ConvertEncoded : public ::testing::TestWithParam<Encoding> {
 protected:
  ConvertEncoded() { options_.source.formats.format = GetParam(); }
  const FormatConfig& formats() const { return options_.source.formats; }

  const ScratchFolder scratch_;
  ConvertOptions options_;
};

TEST_P(ConvertEncoded, StoresTheBytesOfTheMatrixInOnePieceAndWhatTheyLose) {
  for (const DType dtype : {DType::kF16, DType::kBF16, DType::kF32}) {
    SCOPED_TRACE(dtype_name(dtype));
    const TinyCheckpoint checkpoint = sparse_checkpoint(dtype);
    const std::string name(dtype_name(dtype));
    write_checkpoint(scratch_ / name, checkpoint);
    const ConvertSummary summary =
        convert_checkpoint(scratch_ / name, scratch_ / (name + "-store"), options_);
    EXPECT_EQ(summary.manifest, read_manifest(scratch_ / (name + "-store")));
    expect_store(scratch_ / (name + "-store"), checkpoint, formats());
  }
}

TEST_P(ConvertEncoded, MakesTheSameStoreOfPiecesOfAnySizeOnAnyNumberOfThreads) {
  const TinyCheckpoint checkpoint = wide_checkpoint();
  write_checkpoint(scratch_ / "model", checkpoint);
  convert_checkpoint(scratch_ / "model", scratch_ / "store", options_);
  expect_store(scratch_ / "store", checkpoint, formats());
  auto expected = content_of(scratch_ / "store");
  expected.erase("manifest.json");  // of these stores it names no tokenizer, and is compared as a whole below
  expected.erase("vocab.json");
  expected.erase("merges.txt");
  for (const Pieces pieces : {Pieces{2000, 1}, Pieces{2000, 3}, Pieces{150'000, 2}, Pieces{8 << 20, 4}}) {
    SCOPED_TRACE(fmt::format("{} bytes, {} encoders", pieces.bytes, pieces.num_encoders));
    const auto store = scratch_ / fmt::format("store-{}-{}", pieces.bytes, pieces.num_encoders);
    convert_in_pieces(scratch_ / "model", store, formats(), pieces);
    const Manifest manifest = read_manifest(store);
    auto found = content_of(store);
    found.erase("manifest.json");
    EXPECT_TRUE(found == expected);
    const std::vector<StoredTensor> wanted = read_manifest(scratch_ / "store").tensors;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      EXPECT_EQ(manifest.tensors[i].checksum, wanted[i].checksum);
      EXPECT_EQ(manifest.tensors[i].stats.zeros, wanted[i].stats.zeros);
      EXPECT_NEAR(manifest.tensors[i].stats.error, wanted[i].stats.error, 1e-9);
    }
  }
}

TEST_P(ConvertEncoded, RefusesAnElementThatIsNoNumberWithItsPlace) {
  TinyCheckpoint checkpoint = sparse_checkpoint(DType::kF32);
  checkpoint.value = [](const std::string& name, std::int64_t i) {
    return name == "decoder.layers.0.fc1.weight" && i == 48 * 7 + 11 ? std::nanf("") : sparse_value(name, i);
  };
  write_checkpoint(scratch_ / "model", checkpoint);
  const Error error = error_of([&] { convert_checkpoint(scratch_ / "model", scratch_ / "store", options_); });
  EXPECT_EQ(error.code(), Code::kInvalidArgument);
  EXPECT_THAT(error.what(), HasSubstr("decoder.layers.0.fc1.weight: row 7, column 11"));
  EXPECT_FALSE(is_store(scratch_ / "store"));
}

INSTANTIATE_TEST_SUITE_P(All, ConvertEncoded, ::testing::ValuesIn(all_encodings()),
                         [](const auto& one) { return std::string(encoding_name(one.param)); });

// The small pieces are as few rows as format and scope can be cut at.
TEST(ConvertPruned, PrunesAsIfTheTensorWereInOnePiece) {
  const ScratchFolder scratch;
  const TinyCheckpoint checkpoint = wide_checkpoint();
  write_checkpoint(scratch / "model", checkpoint);
  for (const Encoding encoding : {Encoding::kDense, Encoding::kBitmap, Encoding::kBitmapInt4}) {
    for (const PruneScope scope : {PruneScope::kRow, PruneScope::kTile, PruneScope::kMatrix}) {
      for (const Pieces pieces : {Pieces{2000, 3}, Pieces{8 << 20, 1}}) {
        SCOPED_TRACE(fmt::format("{} per {}, pieces of {}", encoding_name(encoding), prune_scope_name(scope),
                                 pieces.bytes));
        FormatConfig formats;
        formats.format = encoding;
        formats.sparsity = 0.85;  // above what is zero already
        formats.prune_per = scope;
        convert_in_pieces(scratch / "model", scratch / "store", formats, pieces);
        expect_store(scratch / "store", checkpoint, formats);
        std::filesystem::remove_all(scratch / "store");
      }
    }
  }
}

TEST(ConvertPruned, FakesTheSameMasksForTheSameSeed) {
  const ScratchFolder scratch;
  const TinyCheckpoint checkpoint = wide_checkpoint();
  write_checkpoint(scratch / "model", checkpoint);
  FormatConfig formats;
  formats.format = Encoding::kBitmap;
  formats.sparsity = 0.9;
  formats.fake = true;
  formats.fake_seed = 5;
  convert_in_pieces(scratch / "model", scratch / "one", formats, {2000, 3});
  convert_in_pieces(scratch / "model", scratch / "two", formats, {8 << 20, 1});
  expect_store(scratch / "one", checkpoint, formats);
  EXPECT_TRUE(content_of(scratch / "one") == content_of(scratch / "two"));
  formats.fake_seed = 6;
  convert_in_pieces(scratch / "model", scratch / "three", formats, {8 << 20, 1});
  EXPECT_FALSE(content_of(scratch / "one")["layer-0000.bin"] ==
               content_of(scratch / "three")["layer-0000.bin"]);
}

TEST(ConvertPruned, TheSourceLineSaysByWhichRule) {
  const ScratchFolder scratch;
  write_checkpoint(scratch / "model", sparse_checkpoint());
  const auto source_of = [&](const FormatConfig& formats) {
    SourceOptions options;
    options.formats = formats;
    return open_source(scratch / "model", options).plan.source.text;
  };
  FormatConfig formats;
  std::set<std::string> lines = {source_of(formats)};
  EXPECT_THAT(*lines.begin(), ::testing::Not(HasSubstr("prune")));
  formats.sparsity = 0.5;
  EXPECT_THAT(*lines.insert(source_of(formats)).first,
              HasSubstr("prune decoder.layers.0.fc1.weight to 0.5 per row\n"));
  formats.prune_per = PruneScope::kTile;
  lines.insert(source_of(formats));
  formats.sparsity = 0.6;
  lines.insert(source_of(formats));
  formats.fake = true;
  EXPECT_THAT(*lines.insert(source_of(formats)).first,
              HasSubstr("prune decoder.layers.0.fc1.weight to 0.6 at random, seed 0\n"));
  formats.fake_seed = 1;
  lines.insert(source_of(formats));
  formats.overrides = {{.layers = {}, .tensors = "fc1", .format = {}, .sparsity = 0.7, .prune_per = {}}};
  lines.insert(source_of(formats));
  EXPECT_EQ(lines.size(), 7U) << "two rules have one line";
}

// Sizes, zeros and error of what is there come from the journal.
TEST(ConvertEncodedInterrupted, ContinuesAfterAKillAtEveryPiece) {
  for (const Encoding encoding : {Encoding::kBitmap, Encoding::kTiledCsl, Encoding::kBitmapInt4}) {
    SCOPED_TRACE(encoding_name(encoding));
    const ScratchFolder scratch;
    write_checkpoint(scratch / "model", sparse_checkpoint());
    ConvertOptions options;
    options.source.formats.format = encoding;
    options.source.formats.sparsity = 0.7;
    options.source.formats.prune_per = PruneScope::kMatrix;
    convert_checkpoint(scratch / "model", scratch / "expected", options);
    const auto expected = content_of(scratch / "expected");
    int stage = 0;
    while (convert_and_die(scratch / "model", scratch / "store", stage, options.source)) {
      const ConvertSummary summary = convert_checkpoint(scratch / "model", scratch / "store", options);
      EXPECT_GT(summary.resumed_bytes, 0);
      EXPECT_TRUE(content_of(scratch / "store") == expected) << "killed at piece " << stage;
      std::filesystem::remove_all(scratch / "store");
      ++stage;
    }
    EXPECT_GT(stage, 15);
  }
}

TEST(ConvertEncodedInterrupted, StopsOnRequestAtEveryPieceAndContinues) {
  const ScratchFolder scratch;
  const TinyCheckpoint checkpoint = wide_checkpoint();
  write_checkpoint(scratch / "model", checkpoint);
  ConvertOptions options;
  options.source.formats.format = Encoding::kBankCsl;
  options.source.formats.sparsity = 0.8;
  options.source.formats.prune_per = PruneScope::kMatrix;  // encoders wait for their turn
  for (int stage = 1; stage < 20; stage += 3) {
    std::stop_source stop;
    int pieces = 0;
    ConvertOptions stopped = options;
    stopped.stop = stop.get_token();
    stopped.progress = [&](const ConvertProgress&) {
      if (++pieces == stage) stop.request_stop();
    };
    const Error error = error_of([&] { convert_checkpoint(scratch / "model", scratch / "store", stopped); });
    EXPECT_EQ(error.code(), Code::kCancelled);
    EXPECT_GT(convert_checkpoint(scratch / "model", scratch / "store", options).resumed_bytes, 0);
    expect_store(scratch / "store", checkpoint, options.source.formats);
    std::filesystem::remove_all(scratch / "store");
  }
}

TEST(ConvertEncodedInterrupted, StartsOverForAnotherFormat) {
  const ScratchFolder scratch;
  const TinyCheckpoint checkpoint = sparse_checkpoint();
  write_checkpoint(scratch / "model", checkpoint);
  ConvertOptions options;
  options.source.formats.format = Encoding::kBitmap;
  ASSERT_TRUE(convert_and_die(scratch / "model", scratch / "store", 12, options.source));
  options.source.formats.format = Encoding::kBankCsl;
  EXPECT_EQ(convert_checkpoint(scratch / "model", scratch / "store", options).resumed_bytes, 0);
  expect_store(scratch / "store", checkpoint, options.source.formats);
}

}  // namespace
}  // namespace sluice::kernels
