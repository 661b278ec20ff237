#include "tests/offload/io/io_test_support.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <random>

namespace sluice::offload::io_test {

Buffer::Buffer(std::int64_t bytes, std::byte fill)
    : bytes_(bytes),
      data_(
          static_cast<std::byte*>(std::aligned_alloc(kPageAlign, std::max<std::size_t>(bytes, kPageAlign)))) {
  std::fill_n(data_.get(), bytes, fill);
}

TempDir::TempDir() {
  std::string name = (std::filesystem::temp_directory_path() / "sluice_io_test_XXXXXX").string();
  path_ = mkdtemp(name.data());
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::byte> random_bytes(std::int64_t bytes, std::uint64_t seed) {
  std::vector<std::byte> result(static_cast<std::size_t>(bytes));
  std::mt19937_64 random(seed);
  for (std::size_t i = 0; i < result.size(); i += 8) {
    const std::uint64_t word = random();
    std::memcpy(result.data() + i, &word, std::min<std::size_t>(8, result.size() - i));
  }
  return result;
}

void write_plainly(const std::filesystem::path& path, std::span<const std::byte> content) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
  ASSERT_TRUE(out.flush().good());
}

std::vector<std::byte> read_plainly(const std::filesystem::path& path) {
  std::vector<std::byte> content(std::filesystem::file_size(path));
  std::ifstream in(path, std::ios::binary);
  in.read(reinterpret_cast<char*>(content.data()), static_cast<std::streamsize>(content.size()));
  EXPECT_TRUE(in.good());
  return content;
}

IoCompletion run_one(BlockIo& io, const IoRequest& request) {
  EXPECT_TRUE(io.try_submit(request));
  std::optional<IoCompletion> done = io.wait(kNever);
  EXPECT_TRUE(done.has_value());
  return done.value_or(IoCompletion{});
}

void run_random_requests(BlockIo& io, FileId file, std::vector<std::byte>& model, std::uint64_t seed,
                         int num_requests) {
  struct Running {
    IoRequest request;
    std::unique_ptr<Buffer> buffer;
    std::vector<std::byte> expected;  // of a read
  };
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  constexpr std::size_t kRunning = 12;
  std::mt19937_64 random(seed);
  const auto draw = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  const std::int64_t blocks = static_cast<std::int64_t>(model.size()) / kPageAlign;
  std::vector<Running> running(kRunning);
  const auto conflicts = [&](const IoRequest& r) {
    return std::any_of(running.begin(), running.end(), [&](const Running& other) {
      const IoRequest& o = other.request;
      return other.buffer != nullptr && (o.op == IoOp::kWrite || r.op == IoOp::kWrite) &&
             o.offset < r.offset + r.bytes && r.offset < o.offset + o.bytes;
    });
  };
  for (int submitted = 0, finished = 0; finished < num_requests;) {
    const auto free =
        std::find_if(running.begin(), running.end(), [](const Running& r) { return r.buffer == nullptr; });
    if (submitted < num_requests && free != running.end()) {
      const std::int64_t first = draw(0, blocks - 1);
      IoRequest r;
      r.op = draw(0, 1) == 0 ? IoOp::kRead : IoOp::kWrite;
      r.file = file;
      r.offset = first * kPageAlign;
      r.bytes = draw(0, std::min<std::int64_t>(blocks - first, draw(1, 64))) * kPageAlign;
      r.tag = static_cast<std::uint64_t>(free - running.begin());
      if (!conflicts(r)) {
        free->buffer = std::make_unique<Buffer>(r.bytes, std::byte{0xA5});
        r.data = free->buffer->data();
        const auto begin = model.begin() + r.offset;
        if (r.op == IoOp::kWrite) {
          const std::vector<std::byte> fresh = random_bytes(r.bytes, random());
          std::copy(fresh.begin(), fresh.end(), r.data);
          std::copy(fresh.begin(), fresh.end(), begin);
        } else {
          free->expected.assign(begin, begin + r.bytes);
        }
        free->request = r;
        ASSERT_TRUE(io.try_submit(r));
        ++submitted;
        if (draw(0, 2) != 0) continue;  // often several before the next wait
      }
    }
    const std::optional<IoCompletion> done = io.wait(kNever);
    ASSERT_TRUE(done.has_value());
    Running& r = running.at(done->tag);
    ASSERT_NE(r.buffer, nullptr) << "a request completed twice";
    ASSERT_TRUE(done->status.ok()) << done->status.message();
    ASSERT_EQ(done->bytes, r.request.bytes);
    if (r.request.op == IoOp::kRead) {
      ASSERT_TRUE(std::equal(r.expected.begin(), r.expected.end(), r.request.data))
          << "read of " << r.request.bytes << " bytes at " << r.request.offset;
    }
    r.buffer.reset();
    ++finished;
  }
  EXPECT_EQ(io.in_flight(), 0);
}

}  // namespace sluice::offload::io_test
