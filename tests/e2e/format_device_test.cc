// Encoded weights on a device with memory of its own: they are looked at in host memory and go through the
// bounce buffers.
#include <cstring>
#include <fstream>
#include <optional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/store/manifest.h"
#include "core/store/store_writer.h"
#include "kernels/device/cpu/thread_pool.h"
#include "kernels/format/random_matrix.h"
#include "kernels/format/random_weights.h"
#include "offload/plan_run.h"
#include "offload/weights/resident_loader.h"
#include "tests/e2e/small_model.h"
#include "tests/fakes/fake_async_device.h"
#include "tests/fakes/fake_io.h"
#include "tests/fakes/temp_folder.h"
#include "tests/support/error_of.h"

namespace sluice {
namespace {

using kernels::fakes::FakeAsyncDevice;
using kernels::fakes::Fault;
using sluice::testing::error_of;
using ::testing::HasSubstr;

constexpr const char* kSparse = "tiny-opt-books-sparse80";

offload::ModelSource stored(Encoding encoding) {
  kernels::FormatConfig formats;
  formats.format = encoding;
  offload::ModelSource source;
  source.store = testing::store_of(kSparse, formats);
  return source;
}

/// Computes as the CPU does, in memory of its own.
class CpuWithOwnMemory final : public kernels::Device {
 public:
  explicit CpuWithOwnMemory(std::unique_ptr<kernels::Device> cpu) : cpu_(std::move(cpu)) {}
  kernels::DeviceKind kind() const override { return cpu_->kind(); }
  std::string description() const override { return cpu_->description(); }
  bool has_own_memory() const override { return true; }
  std::int64_t free_bytes() const override { return memory_.free_bytes(); }
  kernels::DeviceMemory allocate(std::int64_t bytes) override { return memory_.allocate(bytes); }
  std::unique_ptr<kernels::DeviceResource> pin(std::span<std::byte> host) override { return cpu_->pin(host); }
  std::unique_ptr<kernels::Stream> make_stream(kernels::StreamPriority priority,
                                               std::span<std::byte> workspace) override {
    return cpu_->make_stream(priority, workspace);
  }

 private:
  const std::unique_ptr<kernels::Device> cpu_;
  FakeAsyncDevice memory_;
};

class OwnMemory : public ::testing::TestWithParam<Encoding> {};

TEST_P(OwnMemory, GivesTheResultsOfTheDenseModelBitByBit) {
  std::vector<offload::Request> requests;
  for (int i = 0; i < 3; ++i) {
    offload::Request request;
    request.prompt_ids = testing::prompt_of(20 + 30 * i, 4096, static_cast<std::uint32_t>(i));
    request.max_new_tokens = 5;
    request.want_logprobs = request.want_prompt_logprobs = request.ignore_eos = true;
    requests.push_back(request);
  }
  const testing::RunOutcome dense = testing::run_requests(
      testing::model(kSparse), testing::placed({100, 0, 100, 0, 100, 0}, 3, 1, false), requests);
  offload::RunHooks hooks;
  hooks.wrap_device = [](std::unique_ptr<kernels::Device> cpu) {
    return std::make_unique<CpuWithOwnMemory>(std::move(cpu));
  };
  for (const auto& percents :
       {std::vector<int>{100, 0, 100, 0, 100, 0}, {40, 30, 100, 0, 100, 0}, {0, 0, 100, 0, 100, 0}}) {
    const testing::RunOutcome found = testing::run_requests(
        stored(GetParam()), testing::placed(percents, 2, 2, false), requests, nullptr, &hooks);
    EXPECT_EQ(testing::first_difference(dense.results, found.results), "");
  }
}

INSTANTIATE_TEST_SUITE_P(All, OwnMemory,
                         ::testing::Values(Encoding::kTiledCsl, Encoding::kBankCsl, Encoding::kPairs24,
                                           Encoding::kBitmap),
                         [](const auto& one) { return std::string(encoding_name(one.param)); });

/// The loader alone, onto a device whose copies run later, on a thread of their own. It is planned as for the
/// CPU, because the plan of a device without kernels for a format refuses it.
class LoadEncoded {
 public:
  explicit LoadEncoded(const offload::ModelSource& model, const std::vector<int>& percents) : source_(model) {
    if (!source_.synthetic()) {
      for (const std::string& file : source_.manifest().files) {
        std::ifstream in(source_.store() / file, std::ios::binary);
        const std::string text((std::istreambuf_iterator<char>(in)), {});
        const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
        disk_->put((source_.store() / file).string(), {bytes, bytes + text.size()});
      }
    }
    offload::fakes::FakeScript script;
    script.reorder = true;
    io_ = std::make_unique<offload::fakes::FakeIo>(offload::BlockIoOptions{}, disk_, script);
    offload::EngineOptions options;
    options.placement = testing::placed(percents, 1, 1, false);
    options.workload.add_request(16, 8);
    plan_ = offload::plan_run(source_, options, *kernels::make_cpu_device(pool_));
    budget_.emplace(plan_.budget_bytes);
    memory_.emplace(plan_.memory, *budget_, std::filesystem::path(), 1, device_);
    stream_ = device_.make_fake_stream();
  }
  void load() {
    offload::load_resident_weights({source_, plan_.shape, *memory_, device_, *stream_, *io_, pool_, {}});
  }

  const offload::WeightSource& source() const { return source_; }
  FakeAsyncDevice& device() { return device_; }
  kernels::fakes::FakeAsyncStream& stream() { return *stream_; }
  kernels::ThreadPool& pool() { return pool_; }
  std::int64_t in_flight() const { return io_->in_flight(); }
  Tier tier(std::size_t tensor) const { return plan_.shape.tensors[tensor].tier; }
  std::span<const std::byte> home(std::size_t tensor) const {
    return offload::resident_home(plan_.shape, *memory_, tensor)
        .first(static_cast<std::size_t>(source_.tensors()[tensor].bytes));
  }
  std::span<const std::byte> stored_bytes(std::size_t tensor) {
    const StoredTensor& stored = source_.manifest().tensors[tensor];
    last_file_ = disk_->content(path_of(stored));
    return std::span(last_file_)
        .subspan(static_cast<std::size_t>(stored.offset), static_cast<std::size_t>(stored.bytes));
  }
  void flip_a_bit_of(std::size_t tensor) {
    const StoredTensor& stored = source_.manifest().tensors[tensor];
    std::vector<std::byte> bytes = disk_->content(path_of(stored));
    bytes[static_cast<std::size_t>(stored.offset + stored.bytes / 2)] ^= std::byte{1};
    disk_->put(path_of(stored), bytes);
  }

 private:
  std::string path_of(const StoredTensor& tensor) const {
    return (source_.store() / source_.manifest().files.at(static_cast<std::size_t>(tensor.file))).string();
  }

  const offload::WeightSource source_;
  std::shared_ptr<offload::fakes::FakeDisk> disk_ = std::make_shared<offload::fakes::FakeDisk>();
  std::unique_ptr<offload::BlockIo> io_;
  kernels::ThreadPool pool_{2};
  FakeAsyncDevice device_{{.jitter = std::chrono::microseconds(200)}};
  offload::PlannedRun plan_;
  std::optional<offload::MemoryBudget> budget_;
  std::optional<offload::TierMemory> memory_;
  std::unique_ptr<kernels::fakes::FakeAsyncStream> stream_;
  std::vector<std::byte> last_file_;
};

/// Every tensor that rests in memory has its stored bytes there.
void expect_loaded(LoadEncoded& loaded) {
  PerTier<int> count{};
  for (std::size_t i = 0; i < loaded.source().tensors().size(); ++i) {
    ++count[loaded.tier(i)];
    if (loaded.tier(i) == Tier::kDisk) continue;
    EXPECT_TRUE(std::ranges::equal(loaded.home(i), loaded.stored_bytes(i)))
        << loaded.source().tensors()[i].spec.name;
  }
  EXPECT_GT(count[Tier::kGpu], 3);
}

TEST(LoadEncodedOnDevice, BringsEveryTensorToItsPlace) {
  for (const Encoding encoding : {Encoding::kTiledCsl, Encoding::kBitmapInt8, Encoding::kInt4G64}) {
    LoadEncoded mixed(stored(encoding), {40, 30, 100, 0, 100, 0});
    mixed.load();
    expect_loaded(mixed);
  }
}

TEST(LoadEncodedOnDevice, AChangedMatrixEndsItWithNothingLeftInFlight) {
  for (const Tier tier : {Tier::kGpu, Tier::kCpu, Tier::kDisk}) {
    LoadEncoded mixed(stored(Encoding::kBitmap), {40, 30, 100, 0, 100, 0});
    std::size_t victim = 0;
    while (mixed.tier(victim) != tier || mixed.source().tensors()[victim].format.encoding == Encoding::kDense)
      ++victim;
    mixed.flip_a_bit_of(victim);
    const Error error = error_of([&] { mixed.load(); });
    EXPECT_EQ(error.code(), Code::kCorrupt);
    EXPECT_THAT(error.what(), HasSubstr(mixed.source().tensors()[victim].spec.name));
    EXPECT_EQ(mixed.in_flight(), 0);
  }
}

TEST(LoadEncodedOnDevice, ADeviceThatFailsEndsIt) {
  LoadEncoded resident(stored(Encoding::kBitmap), {100, 0, 100, 0, 100, 0});
  resident.stream().fail_step(2, Fault::kSticky);
  EXPECT_EQ(error_of([&] { resident.load(); }).code(), Code::kDevice);
  EXPECT_EQ(resident.in_flight(), 0);
}

// ---- Matrices that are larger than a bounce buffer of 32 MiB.

ModelSpec large_matrices() {
  ModelSpec spec = testing::small_spec();
  spec.num_layers = 1;
  spec.num_heads = spec.num_kv_heads = 16;
  spec.head_dim = 64;
  spec.hidden_dim = 1024;
  spec.ffn_dim = 20000;
  return spec;
}

offload::ModelSource large_synthetic(Encoding encoding) {
  offload::ModelSource source = testing::synthetic(large_matrices());
  source.random_formats.format = encoding;
  source.random_formats.sparsity = 0.1;
  return source;
}

/// What a synthetic tensor is.
std::vector<std::byte> made(const offload::WeightSource& source, std::size_t index,
                            kernels::ThreadPool& pool) {
  const offload::SourceTensor& tensor = source.tensors()[index];
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.bytes));
  if (tensor.sparsity == 0 && tensor.format.encoding == Encoding::kDense) {
    kernels::random_tensor(tensor.spec, source.spec(), tensor.format, source.seed(), bytes);
  } else {
    kernels::random_matrix({tensor.spec, source.spec(), tensor.format, tensor.sparsity, source.seed()},
                           tensor.tiles ? *tensor.tiles : kernels::TileSizes{}, pool, bytes);
  }
  return bytes;
}

TEST(LoadEncodedOnDevice, SendsALargeSyntheticMatrixInParts) {
  for (const Encoding encoding : {Encoding::kDense, Encoding::kBitmap}) {
    LoadEncoded resident(large_synthetic(encoding), {100, 0, 100, 0, 100, 0});
    resident.load();
    std::int64_t most = 0;
    for (std::size_t i = 0; i < resident.source().tensors().size(); ++i) {
      EXPECT_TRUE(std::ranges::equal(resident.home(i), made(resident.source(), i, resident.pool())));
      most = std::max(most, resident.source().tensors()[i].bytes);
    }
    EXPECT_GT(most, std::int64_t{32} << 20);
  }
}

TEST(LoadEncodedOnDevice, SendsALargeStoredMatrixInParts) {
  const testing::TempFolder folder;
  const offload::WeightSource synthetic(large_synthetic(Encoding::kBitmap));
  kernels::ThreadPool pool(2);
  StorePlan plan{synthetic.spec(), {}, {"synthetic"}};
  for (const offload::SourceTensor& tensor : synthetic.tensors()) plan.formats.push_back(tensor.format);
  StoreWriter writer(StoreLock::acquire(folder.path() / "store"), plan, ExistingStore::kRefuse);
  for (std::size_t i = 0; i < synthetic.tensors().size(); ++i) writer.write_tensor(made(synthetic, i, pool));
  writer.commit();
  offload::ModelSource source;
  source.store = folder.path() / "store";
  LoadEncoded resident(source, {100, 0, 100, 0, 100, 0});
  resident.load();
  expect_loaded(resident);
}

}  // namespace
}  // namespace sluice
