#include <atomic>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/build_config.h"
#include "core/store/posix_file.h"
#include "core/store/read_tensor.h"
#include "core/units.h"
#include "kernels/format/convert.h"
#include "kernels/format/encode_pipeline.h"
#include "kernels/format/piece_reader.h"
#include "tests/fakes/thread_limit.h"
#include "tests/kernels/checkpoint_fixture.h"
#include "tests/kernels/convert_and_die.h"

namespace sluice::kernels {
namespace {

using testing::content_of;
using testing::convert_and_die;
using testing::error_of;
using ::testing::HasSubstr;
using testing::ScratchFolder;
using testing::TinyCheckpoint;
using testing::write_checkpoint;

void expect_store_holds(const std::filesystem::path& store, const TinyCheckpoint& checkpoint) {
  const Manifest manifest = read_manifest(store);
  for (const StoredTensor& tensor : manifest.tensors) {
    const DType source = checkpoint.dtype(tensor.spec.name);
    EXPECT_EQ(tensor.format, source == DType::kBF16 ? WeightFormat::kDenseBF16 : WeightFormat::kDenseF16);
    std::string expected;
    for (std::int64_t i = 0; i < tensor.spec.rows * tensor.spec.cols; ++i) {
      testing::append_element(expected, source == DType::kBF16 ? DType::kBF16 : DType::kF16,
                              checkpoint.value(tensor.spec.name, i));
    }
    const std::vector<std::byte> found = read_stored_tensor(store, manifest, tensor);
    ASSERT_EQ(found.size(), expected.size()) << tensor.spec.name;
    EXPECT_EQ(std::memcmp(found.data(), expected.data(), found.size()), 0) << tensor.spec.name;
  }
}

TEST(Convert, KeepsFp16AndBf16AndRoundsFp32) {
  const auto mixture = [](const std::string& name) {
    if (name.ends_with("bias")) return DType::kF32;
    return name.find("fc") != std::string::npos ? DType::kBF16 : DType::kF16;
  };
  const auto all = [](DType dtype) { return [dtype](const std::string&) { return dtype; }; };
  const std::vector<std::pair<std::function<DType(const std::string&)>, DType>> cases = {
      {all(DType::kF16), DType::kF16},
      {all(DType::kBF16), DType::kBF16},
      {all(DType::kF32), DType::kF16},
      {mixture, DType::kF16}};
  for (const auto& [dtype, weight_dtype] : cases) {
    ScratchFolder scratch;
    TinyCheckpoint checkpoint;
    checkpoint.dtype = dtype;
    write_checkpoint(scratch / "model", checkpoint);
    std::vector<ConvertProgress> reports;
    ConvertOptions options;
    options.progress = [&](const ConvertProgress& progress) { reports.push_back(progress); };
    const ConvertSummary summary = convert_checkpoint(scratch / "model", scratch / "store", options);
    expect_store_holds(scratch / "store", checkpoint);
    EXPECT_EQ(summary.manifest, read_manifest(scratch / "store"));
    EXPECT_EQ(summary.manifest.spec.weight_dtype, weight_dtype);
    EXPECT_EQ(summary.manifest.spec.name, "tiny");
    EXPECT_EQ(summary.manifest.tokenizer_files, (std::vector<std::string>{"vocab.json", "merges.txt"}));
    EXPECT_EQ(testing::read_file(scratch / "store/vocab.json"), R"({"a": 0})");
    EXPECT_EQ(summary.stored_bytes, 2 * num_parameters(checkpoint.spec));
    ASSERT_EQ(reports.size(), summary.manifest.tensors.size());
    EXPECT_EQ(reports.back().done_bytes, reports.back().total_bytes);
    EXPECT_EQ(reports.back().total_bytes, summary.source_bytes);
    EXPECT_EQ(reports.back().left_sec, 0);
  }
}

TEST(Convert, TakesConfigAndTokenizerFromElsewhere) {
  ScratchFolder scratch;
  TinyCheckpoint checkpoint;
  checkpoint.with_config = checkpoint.with_tokenizer = false;
  write_checkpoint(scratch / "model", checkpoint);
  const Error missing = error_of([&] { convert_checkpoint(scratch / "model", scratch / "store", {}); });
  EXPECT_EQ(missing.code(), Code::kNotFound);
  EXPECT_THAT(missing.what(), HasSubstr("--config FILE"));

  testing::write_file(scratch / "my_config.json", testing::config_json(checkpoint.spec).dump());
  ConvertOptions options;
  options.source.config = scratch / "my_config.json";
  options.source.tokenizer = scratch.path();
  const Error no_tokenizer =
      error_of([&] { convert_checkpoint(scratch / "model", scratch / "store", options); });
  EXPECT_EQ(no_tokenizer.code(), Code::kNotFound);
  EXPECT_THAT(no_tokenizer.what(), HasSubstr("--tokenizer"));

  testing::write_file(scratch / "merges.txt", "#");
  convert_checkpoint(scratch / "model/model.safetensors", scratch / "store", options);  // one file, too
  expect_store_holds(scratch / "store", checkpoint);
  EXPECT_EQ(read_manifest(scratch / "store").tokenizer_files, std::vector<std::string>{"merges.txt"});
}

TEST(Convert, RefusesAnOverflowWithTheTensorsName) {
  ScratchFolder scratch;
  TinyCheckpoint checkpoint;
  checkpoint.dtype = [](const std::string&) { return DType::kF32; };
  checkpoint.value = [](const std::string& name, std::int64_t i) {
    return name == "decoder.layers.1.fc1.weight" && i == 48 * 3 + 5 ? 1e6F : testing::value_of(name, i);
  };
  write_checkpoint(scratch / "model", checkpoint);
  const Error error = error_of([&] { convert_checkpoint(scratch / "model", scratch / "store", {}); });
  EXPECT_EQ(error.code(), Code::kInvalidArgument);
  EXPECT_THAT(error.what(),
              HasSubstr("decoder.layers.1.fc1.weight: row 3, column 5: 1000000 is beyond the range of fp16"));
  EXPECT_FALSE(is_store(scratch / "store"));
}

TEST(Convert, NamesAMissingSource) {
  ScratchFolder scratch;
  EXPECT_EQ(error_of([&] { convert_checkpoint(scratch / "none", scratch / "store", {}); }).code(),
            Code::kNotFound);
  std::filesystem::create_directory(scratch / "empty");
  EXPECT_EQ(error_of([&] { convert_checkpoint(scratch / "empty", scratch / "store", {}); }).code(),
            Code::kNotFound);
}

TEST(Convert, NoticesATruncatedSource) {
  ScratchFolder scratch;
  write_checkpoint(scratch / "model", {});
  const std::filesystem::path file = scratch / "model/model.safetensors";
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 100);
  const Error error = error_of([&] { convert_checkpoint(scratch / "model", scratch / "store", {}); });
  EXPECT_EQ(error.code(), Code::kCorrupt);
  EXPECT_THAT(error.what(), HasSubstr(file.string()));
}

TEST(Convert, ContinuesAfterAKillAtEveryPiece) {
  ScratchFolder scratch;
  TinyCheckpoint checkpoint;
  checkpoint.spec.num_layers = 1;
  write_checkpoint(scratch / "model", checkpoint);
  convert_checkpoint(scratch / "model", scratch / "expected", {});
  const auto expected = content_of(scratch / "expected");
  int stage = 0;
  for (; convert_and_die(scratch / "model", scratch / "store", stage); ++stage) {
    EXPECT_FALSE(is_store(scratch / "store"));
    const ConvertSummary summary = convert_checkpoint(scratch / "model", scratch / "store", {});
    EXPECT_GT(summary.resumed_bytes, 0);
    EXPECT_LT(summary.resumed_bytes, summary.stored_bytes + 1);
    EXPECT_EQ(content_of(scratch / "store"), expected) << "killed at piece " << stage;
    std::filesystem::remove_all(scratch / "store");
  }
  EXPECT_EQ(stage, static_cast<int>(model_tensors(checkpoint.spec).size()));
}

TEST(Convert, StartsOverWhenTheCheckpointChangedMeanwhile) {
  ScratchFolder scratch;
  TinyCheckpoint checkpoint;
  write_checkpoint(scratch / "model", checkpoint);
  ASSERT_TRUE(convert_and_die(scratch / "model", scratch / "store", 20));
  checkpoint.value = [](const std::string& name, std::int64_t i) { return 2 * testing::value_of(name, i); };
  write_checkpoint(scratch / "model", checkpoint);
  std::filesystem::last_write_time(scratch / "model/model.safetensors",
                                   std::filesystem::file_time_type::clock::now() + std::chrono::seconds(5));
  EXPECT_EQ(convert_checkpoint(scratch / "model", scratch / "store", {}).resumed_bytes, 0);
  expect_store_holds(scratch / "store", checkpoint);
}

TEST(Convert, StopsOnRequestAndContinues) {
  ScratchFolder scratch;
  write_checkpoint(scratch / "model", {});
  std::stop_source stop;
  ConvertOptions options;
  options.stop = stop.get_token();
  int pieces = 0;
  options.progress = [&](const ConvertProgress&) {
    if (++pieces == 10) stop.request_stop();
  };
  const Error error = error_of([&] { convert_checkpoint(scratch / "model", scratch / "store", options); });
  EXPECT_EQ(error.code(), Code::kCancelled);
  EXPECT_THAT(error.fix(), HasSubstr("same command"));
  EXPECT_EQ(pieces, 10);
  EXPECT_GT(convert_checkpoint(scratch / "model", scratch / "store", {}).resumed_bytes, 0);
  expect_store_holds(scratch / "store", {});
}

/// Passes reads on, and fails the chosen one.
class FailingReader final : public CheckpointReader {
 public:
  FailingReader(std::unique_ptr<CheckpointReader> reader, std::shared_ptr<std::atomic<int>> reads_left)
      : reader_(std::move(reader)), reads_left_(std::move(reads_left)) {}
  const std::vector<CheckpointTensor>& tensors() const override { return reader_->tensors(); }
  void read(std::size_t index, std::int64_t first, std::int64_t count, std::span<std::byte> out) override {
    if ((*reads_left_)-- == 0) throw Error(Code::kIo, "model.safetensors: offset 512: Input/output error");
    reader_->read(index, first, count, out);
  }

 private:
  std::unique_ptr<CheckpointReader> reader_;
  std::shared_ptr<std::atomic<int>> reads_left_;
};

TEST(EncodePipeline, EndsAllThreadsWhenAReadFailsAndContinuesLater) {
  ScratchFolder scratch;
  write_checkpoint(scratch / "model", {});
  const CheckpointSource source = open_source(scratch / "model", {});
  for (const int failing_read : {0, 1, 7, 37}) {
    const std::filesystem::path store = scratch / fmt::format("store{}", failing_read);
    const auto reads_left = std::make_shared<std::atomic<int>>(failing_read);
    PipelineOptions options;
    options.num_pieces = 3;
    options.open_reader = [&] {
      return std::make_unique<FailingReader>(open_checkpoint(source.path), reads_left);
    };
    const Error error = error_of([&] {
      StoreWriter writer(StoreLock::acquire(store), source.plan, ExistingStore::kRefuse);
      run_encode_pipeline(source, writer, options);
    });
    EXPECT_EQ(error.code(), Code::kIo);
    EXPECT_THAT(error.what(), HasSubstr("offset 512"));
    convert_checkpoint(scratch / "model", store, {});
    expect_store_holds(store, {});
  }
}

// The threads that did start would wait for the others' work for ever.
TEST(EncodePipeline, AThreadThatDoesNotStartEndsTheOthers) {
  ScratchFolder scratch;
  write_checkpoint(scratch / "model", {});
  const CheckpointSource source = open_source(scratch / "model", {});
  PipelineOptions options;
  options.num_encoders = 2;
  options.open_reader = [&] { return open_checkpoint(source.path); };
  const int total = options.num_readers + options.num_encoders;
  for (int limit = 0; limit < total; ++limit) {
    const std::filesystem::path store = scratch / fmt::format("store{}", limit);
    fakes::ThreadLimit threads(limit);
    options.make_thread = threads.maker();
    const Error error = error_of([&] {
      StoreWriter writer(StoreLock::acquire(store), source.plan, ExistingStore::kRefuse);
      run_encode_pipeline(source, writer, options);
    });
    EXPECT_EQ(error.code(), Code::kOutOfMemory);
    EXPECT_THAT(error.what(),
                HasSubstr(fmt::format("thread {} of {} of the conversion did not start", limit + 1, total)));
    EXPECT_EQ(threads.running(), 0);
    convert_checkpoint(scratch / "model", store, {});
    expect_store_holds(store, {});
  }
}

TEST(EncodePipeline, CutsTensorsIntoPiecesOfAnySize) {
  for (const DType dtype : {DType::kF16, DType::kF32}) {
    for (const std::int64_t piece_bytes :
         {std::int64_t{1}, std::int64_t{998}, std::int64_t{4096}, std::int64_t{10000}}) {
      ScratchFolder scratch;
      TinyCheckpoint checkpoint;
      checkpoint.spec.vocab_size = 31;
      checkpoint.spec.ffn_dim = 20;
      checkpoint.spec.num_layers = 1;
      checkpoint.dtype = [dtype](const std::string&) { return dtype; };
      write_checkpoint(scratch / "model", checkpoint);
      const CheckpointSource source = open_source(scratch / "model", {});
      StoreWriter writer(StoreLock::acquire(scratch / "store"), source.plan, ExistingStore::kRefuse);
      PipelineOptions options;
      options.piece_bytes = piece_bytes;
      options.num_pieces = 2;
      options.open_reader = [&] { return open_checkpoint(source.path); };
      run_encode_pipeline(source, writer, options);
      writer.commit();
      expect_store_holds(scratch / "store", checkpoint);
    }
  }
}

/// With tensors that are worth a read past the page cache, the last one at the end of the file.
TinyCheckpoint checkpoint_of_larger_tensors() {
  TinyCheckpoint checkpoint;
  checkpoint.spec.num_layers = 1;
  checkpoint.spec.vocab_size = 5003;
  checkpoint.spec.max_positions = 1999;
  return checkpoint;
}

TEST(PieceReader, ReadsPastThePageCacheAndThroughTheReaderAlike) {
  for (const DType dtype : {DType::kF16, DType::kF32}) {
    for (const std::size_t header_size :
         {0U, 2U, 1U}) {  // elements aligned to pages' parts, to themselves, not at all
      for (const std::int64_t piece_bytes : {std::int64_t{8} << 20, std::int64_t{70000}}) {
        ScratchFolder scratch;
        TinyCheckpoint checkpoint = checkpoint_of_larger_tensors();
        checkpoint.header_size_mod_64 = header_size;
        checkpoint.dtype = [dtype](const std::string&) { return dtype; };
        write_checkpoint(scratch / "model", checkpoint);
        const CheckpointSource source = open_source(scratch / "model", {});
        StoreWriter writer(StoreLock::acquire(scratch / "store"), source.plan, ExistingStore::kRefuse);
        PipelineOptions options;
        options.piece_bytes = piece_bytes;
        options.open_reader = [&] { return open_checkpoint(source.path); };
        run_encode_pipeline(source, writer, options);
        writer.commit();
        expect_store_holds(scratch / "store", checkpoint);
      }
    }
  }
}

TEST(PieceReader, NamesFileAndOffsetWhereTheFileEnds) {
  ScratchFolder scratch;
  write_checkpoint(scratch / "model", checkpoint_of_larger_tensors());
  const CheckpointSource source = open_source(scratch / "model", {});
  const std::filesystem::path file = scratch / "model/model.safetensors";
  std::filesystem::resize_file(file, 4096);
  PieceReader reader(source, nullptr);  // not needed for large tensors
  PieceBuffer buffer;
  const std::size_t last = source.tensors.size() - 1;
  const Error error = error_of([&] { reader.read(last, 0, source.tensors[last].num_elements(), buffer); });
  EXPECT_EQ(error.code(), Code::kCorrupt);
  EXPECT_THAT(error.what(), HasSubstr(file.string() + ": ends at offset 4096"));
  std::filesystem::remove(file);
  PieceReader other(source, nullptr);
  EXPECT_EQ(error_of([&] { other.read(last, 0, source.tensors[last].num_elements(), buffer); }).code(),
            Code::kNotFound);
}

TEST(Convert, NoticesACheckpointThatChangesMeanwhile) {
  ScratchFolder scratch;
  write_checkpoint(scratch / "model", {});
  const std::filesystem::path file = scratch / "model/model.safetensors";
  ConvertOptions options;
  int pieces = 0;
  options.progress = [&](const ConvertProgress&) {
    if (++pieces == 5)
      std::filesystem::last_write_time(file,
                                       std::filesystem::last_write_time(file) + std::chrono::seconds(1));
  };
  const Error error = error_of([&] { convert_checkpoint(scratch / "model", scratch / "store", options); });
  EXPECT_EQ(error.code(), Code::kCorrupt);
  EXPECT_THAT(error.what(), HasSubstr("changed while"));
  EXPECT_FALSE(is_store(scratch / "store"));
  EXPECT_EQ(convert_checkpoint(scratch / "model", scratch / "store", {}).resumed_bytes, 0);
}

/// Share of a file's pages that are in memory.
double cached_share(const std::filesystem::path& file) {
  const auto size = static_cast<std::size_t>(std::filesystem::file_size(file));
  const sluice::detail::UniqueFd fd = sluice::detail::open_file(file, O_RDONLY);
  void* const memory = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  std::vector<unsigned char> pages(size / 4096);
  EXPECT_EQ(::mincore(memory, size, pages.data()), 0);
  ::munmap(memory, size);
  return static_cast<double>(
             std::count_if(pages.begin(), pages.end(), [](unsigned char page) { return (page & 1U) != 0; })) /
         static_cast<double>(pages.size());
}

TEST(Convert, NeedsLittleMemoryWhateverTheModel) {
  if (!kSanitize.empty()) GTEST_SKIP() << "sanitizers change what is resident";
  ScratchFolder scratch;
  TinyCheckpoint checkpoint;
  checkpoint.value = [](const std::string&, std::int64_t) { return 0.0F; };
  checkpoint.spec.num_layers = 1;
  checkpoint.spec.num_heads = checkpoint.spec.num_kv_heads = 1;
  checkpoint.spec.hidden_dim = checkpoint.spec.head_dim = checkpoint.spec.embed_dim = 128;
  checkpoint.spec.vocab_size = 600000;  // 307 MB in fp32
  checkpoint.dtype = [](const std::string&) { return DType::kF32; };
  write_checkpoint(scratch / "model", checkpoint);
  const pid_t child = ::fork();
  if (child == 0) {
    // The child inherits what the test held; its own peak counts from here.
    testing::write_file("/proc/self/clear_refs", "5");
    const auto status_kib = [](const char* key) {
      const std::string status = testing::read_file("/proc/self/status");
      return std::stoll(status.substr(status.find(key) + std::strlen(key)));
    };
    const long long before = status_kib("VmRSS:");
    convert_checkpoint(scratch / "model", scratch / "store", {});
    const long long grown_kib = status_kib("VmHWM:") - before;
    std::fprintf(stderr, "conversion of 307 MB: %lld KiB more memory\n", grown_kib);
    ::_exit(grown_kib < 120 * 1024 ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  struct statfs file_system {};
  ASSERT_EQ(::statfs(scratch.path().c_str(), &file_system), 0);
  if (file_system.f_type != TMPFS_MAGIC) {
    EXPECT_LT(cached_share(scratch / "store/output.bin"), 0.01) << "the page cache is left to others";
  }
}

}  // namespace
}  // namespace sluice::kernels
