// Stores whose tensors have sizes that depend on their values: places, files and resumed runs follow the
// sizes that they turned out to have.
#include <gtest/gtest.h>

#include "core/store/checksum.h"
#include "core/store/read_tensor.h"
#include "core/units.h"
#include "tests/core/store_fixture.h"

namespace sluice {
namespace {

using testing::error_of;
using testing::ScratchFolder;
using testing::tiny_spec;

/// The matrices of decoder layers as bitmaps.
StorePlan bitmap_plan() {
  StorePlan plan = testing::plan_of(tiny_spec());
  const std::vector<TensorSpec> tensors = model_tensors(plan.spec);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!tensors[i].is_vector && tensors[i].name.starts_with("decoder.layers."))
      plan.formats[i].encoding = Encoding::kBitmap;
  }
  return plan;
}

/// The first bitmap from tensor `index` on.
std::int64_t bitmap_from(std::int64_t index) {
  const StorePlan plan = bitmap_plan();
  while (plan.formats[static_cast<std::size_t>(index)].encoding == Encoding::kDense) ++index;
  return index;
}

ByteRange range_of(std::int64_t index) {
  const StorePlan plan = bitmap_plan();
  const TensorSpec tensor = model_tensors(plan.spec)[static_cast<std::size_t>(index)];
  return weight_byte_range(plan.formats[static_cast<std::size_t>(index)], tensor.rows, tensor.cols);
}

/// Differs from tensor to tensor: the fewest bytes, the most, and some between.
std::int64_t bytes_of(const StoredTensor& tensor, std::int64_t index) {
  const ByteRange range = weight_byte_range(tensor.format, tensor.spec.rows, tensor.spec.cols);
  return range.min + (range.max - range.min) * (index % 4) / 3;
}

std::vector<std::byte> payload_of(const StoredTensor& tensor, std::int64_t index) {
  StoredTensor sized = tensor;
  sized.bytes = bytes_of(tensor, index);
  return testing::payload_of(sized, static_cast<std::size_t>(index));
}

TensorStats stats_of(std::int64_t index) { return {index % 7, static_cast<double>(index) / 3000.0}; }

void write_until(StoreWriter& writer, std::int64_t until) {
  while (writer.next_tensor() < until) {
    const std::int64_t index = writer.next_tensor();
    const std::vector<std::byte> bytes = payload_of(writer.tensors()[static_cast<std::size_t>(index)], index);
    const std::size_t half = bytes.size() / 2;  // no multiple of a page
    writer.append(std::span(bytes).first(half));
    writer.append(std::span(bytes).subspan(half));
    writer.finish_tensor(store_checksum(bytes), stats_of(index));
  }
}

void expect_complete(const std::filesystem::path& store) {
  const Manifest manifest = read_manifest(store);  // looks at the files' sizes, too
  std::vector<std::int64_t> end(manifest.files.size(), 0);
  for (std::size_t i = 0; i < manifest.tensors.size(); ++i) {
    const StoredTensor& tensor = manifest.tensors[i];
    const auto index = static_cast<std::int64_t>(i);
    SCOPED_TRACE(tensor.spec.name);
    EXPECT_EQ(tensor.bytes, bytes_of(tensor, index));
    EXPECT_EQ(tensor.offset, end[static_cast<std::size_t>(tensor.file)]);
    EXPECT_EQ(tensor.stats, stats_of(index));
    EXPECT_EQ(read_stored_tensor(store, manifest, tensor), payload_of(tensor, index));
    end[static_cast<std::size_t>(tensor.file)] = tensor.offset + align_up(tensor.bytes, kPageAlign);
  }
  for (std::size_t i = 0; i < end.size(); ++i) {
    EXPECT_EQ(static_cast<std::int64_t>(std::filesystem::file_size(store / manifest.files[i])), end[i]);
  }
}

class StoreWriterSizes : public ::testing::Test {
 protected:
  StoreWriter writer() { return {StoreLock::acquire(store_), bitmap_plan(), ExistingStore::kRefuse}; }
  void interrupt_after(std::int64_t num_tensors) {
    StoreWriter first = writer();
    write_until(first, num_tensors);
  }
  void finish_and_expect_complete(StoreWriter& writer) const {
    write_until(writer, num_tensors_);
    writer.commit();
    expect_complete(store_);
  }
  std::filesystem::path temporary(const std::string& file) const { return scratch_ / ("store.tmp/" + file); }

  const ScratchFolder scratch_;
  const std::filesystem::path store_ = scratch_ / "store";
  const std::int64_t num_tensors_ = std::ssize(model_tensors(tiny_spec()));
};

TEST_F(StoreWriterSizes, PlacesTensorsBehindWhatTheOnesBeforeNeededAndCutsTheFile) {
  StoreWriter first = writer();
  std::int64_t most = 0, total = 0;
  for (std::int64_t i = 0; i < num_tensors_; ++i) {
    const StoredTensor& tensor = first.tensors()[static_cast<std::size_t>(i)];
    most += tensor.bytes;
    total += bytes_of(tensor, i);
  }
  EXPECT_LT(total, most) << "planned with the most";
  finish_and_expect_complete(first);
}

TEST_F(StoreWriterSizes, ContinuesBehindEveryTensorItFinished) {
  for (std::int64_t stop = 0; stop <= num_tensors_; ++stop) {
    {
      StoreWriter first = writer();
      write_until(first, stop);
      if (stop < num_tensors_) first.append(std::vector<std::byte>(20));  // in the middle of the next one
    }
    StoreWriter second = writer();
    ASSERT_EQ(second.next_tensor(), stop);
    finish_and_expect_complete(second);
    std::filesystem::remove_all(store_);
  }
}

// The process died when the last tensor of a file was on record and the file was not cut to its end yet.
TEST_F(StoreWriterSizes, CutsAFileThatTheInterruptedRunLeftTooLong) {
  std::int64_t in_first_layer = 0;
  {
    StoreWriter first = writer();
    while (first.tensors()[static_cast<std::size_t>(in_first_layer)].file < 2) ++in_first_layer;
    write_until(first, in_first_layer);
  }
  const std::string journal = testing::read_file(temporary("journal.jsonl"));
  const std::string last_line = "{\"unit\":1}\n";
  ASSERT_TRUE(journal.ends_with(last_line));
  testing::write_file(temporary("journal.jsonl"), journal.substr(0, journal.size() - last_line.size()));
  const std::filesystem::path file = temporary("layer-0000.bin");
  std::filesystem::resize_file(file, std::filesystem::file_size(file) + 5 * kPageAlign);
  StoreWriter second = writer();
  EXPECT_EQ(second.next_tensor(), in_first_layer);
  finish_and_expect_complete(second);
}

TEST_F(StoreWriterSizes, StartsOverFromASizeThatTheFormatCannotHave) {
  interrupt_after(20);
  const std::string journal = testing::read_file(temporary("journal.jsonl"));
  const std::int64_t victim = bitmap_from(12);
  const ByteRange range = range_of(victim);
  const std::string key = fmt::format("{{\"tensor\":{},\"bytes\":", victim);
  const std::size_t begin = journal.find(key) + key.size();
  const std::size_t end = journal.find(',', begin);
  for (const std::int64_t bytes : {range.min - 16, range.max + 16, std::int64_t{-1}, std::int64_t{0}}) {
    std::string changed = journal;
    changed.replace(begin, end - begin, std::to_string(bytes));
    testing::write_file(temporary("journal.jsonl"), changed);
    EXPECT_EQ(writer().next_tensor(), victim) << bytes;
  }
  StoreWriter last = writer();
  finish_and_expect_complete(last);
}

// A size in the range, but not the one that was written: the checksum tells.
TEST_F(StoreWriterSizes, StartsOverFromASizeThatTheBytesDoNotHave) {
  interrupt_after(16);
  std::string journal = testing::read_file(temporary("journal.jsonl"));
  const std::int64_t victim = bitmap_from(12);  // in the file that was not synced
  const std::string key = fmt::format("{{\"tensor\":{},\"bytes\":", victim);
  const std::size_t begin = journal.find(key) + key.size();
  const std::size_t end = journal.find(',', begin);
  const std::int64_t bytes = std::stoll(journal.substr(begin, end - begin));
  const std::int64_t other = bytes + (bytes < range_of(victim).max ? 16 : -16);
  journal.replace(begin, end - begin, std::to_string(other));
  testing::write_file(temporary("journal.jsonl"), journal);
  StoreWriter second = writer();
  EXPECT_EQ(second.next_tensor(), victim);
  finish_and_expect_complete(second);
}

TEST_F(StoreWriterSizes, RefusesASizeThatTheFormatCannotHave) {
  const std::int64_t victim = bitmap_from(0);
  const auto refused = [&](std::int64_t more_than_max, std::int64_t less_than_min) {
    StoreWriter first = writer();
    write_until(first, victim);
    const ByteRange range = range_of(victim);
    const std::int64_t bytes = more_than_max > 0 ? range.max + more_than_max : range.min - less_than_min;
    return error_of([&] {
             first.append(std::vector<std::byte>(static_cast<std::size_t>(bytes)));
             first.finish_tensor(0, {});
           })
        .code();
  };
  EXPECT_EQ(refused(1, 0), Code::kInternal);
  EXPECT_EQ(refused(0, 1), Code::kInternal);
}

}  // namespace
}  // namespace sluice
