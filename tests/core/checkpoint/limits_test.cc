// Limits that only large inputs reach, so that no checkpoint can make a reader take much memory.
#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/checkpoint/pickle.h"
#include "core/checkpoint/zip_archive.h"
#include "core/units.h"
#include "tests/fakes/checkpoint_bytes.h"
#include "tests/fakes/temp_folder.h"

namespace sluice {
namespace {

using testing::error_of;
using ::testing::HasSubstr;
using testing::little_endian;
using testing::PickleBytes;

/// Zeros of any length with `tail` at the end; takes no memory.
class SparseSource final : public ByteSource {
 public:
  SparseSource(std::int64_t bytes, std::string tail) : ByteSource("sparse", bytes), tail_(std::move(tail)) {}

 private:
  void read_inside(std::int64_t offset, std::span<std::byte> out) override {
    std::memset(out.data(), 0, out.size());
    const std::int64_t tail_at = size() - static_cast<std::int64_t>(tail_.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::int64_t at = offset + static_cast<std::int64_t>(i) - tail_at;
      if (at >= 0) out[i] = static_cast<std::byte>(tail_[static_cast<std::size_t>(at)]);
    }
  }
  std::string tail_;
};

void expect_refused(const std::string& pickle, const char* message) {
  MemorySource source(std::as_bytes(std::span(pickle)), "pickle");
  const Error e = error_of([&] { (void)parse_pickle(source, 0, source.size(), {}); });
  EXPECT_EQ(e.code(), Code::kCorrupt);
  EXPECT_THAT(e.what(), HasSubstr(message));
}

TEST(Limits, PickleBytes) {
  SparseSource source(1_GiB, "");
  const Error e = error_of([&] { (void)parse_pickle(source, 100, 64_MiB + 1, {}); });
  EXPECT_EQ(e.code(), Code::kCorrupt);
  EXPECT_THAT(e.what(), HasSubstr("offset 100: pickle: 67108865 bytes, the limit is 67108864"));
}

TEST(Limits, PickleObjects) { expect_refused(std::string(2'000'001, 'N'), "more than 2000000 objects"); }

TEST(Limits, PickleMemo) {
  expect_refused("N" + std::string(2'000'001, '\x94'), "more than 2000000 memo entries");
}

// A list that is shared by many dictionaries would be copied into each.
TEST(Limits, PickleSharedPairs) {
  PickleBytes pickle;
  pickle.op("]q").op(std::string(1, '\0')).op("(");
  for (int i = 0; i < 1000; ++i) pickle.op("NN\x86");
  pickle.op("e\x85q\x01").global("collections", "OrderedDict").op("q\x02");
  for (int i = 0; i < 3000; ++i) pickle.op("h\x02h\x01R");
  expect_refused(pickle.bytes(), "more than 4000000 items of OrderedDict");
}

TEST(Limits, ZipDirectory) {
  const std::string end = std::string("PK\x05\x06") + little_endian(0, 4) + little_endian(1, 2) +
                          little_endian(1, 2) + little_endian(100'000'001, 4) + little_endian(0, 4) +
                          little_endian(0, 2);
  SparseSource source(1_GiB, end);
  const Error e = error_of([&] { ZipArchive archive(source); });
  EXPECT_EQ(e.code(), Code::kCorrupt);
  EXPECT_THAT(e.what(), HasSubstr("a directory of 100000001 bytes, the limit is 100000000"));
}

}  // namespace
}  // namespace sluice
