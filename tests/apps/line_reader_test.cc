#include "apps/jsonl/line_reader.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>

#include "core/error.h"

namespace sluice::apps {
namespace {

class LineReaderTest : public ::testing::Test {
 protected:
  std::string write(const std::string& content) {
    std::ofstream(path_, std::ios::binary) << content;
    return path_;
  }
  void TearDown() override { std::filesystem::remove(path_); }
  std::string path_ = ::testing::TempDir() + "line_reader_test.txt";
};

TEST_F(LineReaderTest, SplitsAtEitherLineEndAndCountsLines) {
  LineReader reader(write("one\r\n\ntwo"));
  std::string line;
  ASSERT_TRUE(reader.next(line));
  EXPECT_EQ(line, "one");
  ASSERT_TRUE(reader.next(line));
  EXPECT_EQ(line, "");
  ASSERT_TRUE(reader.next(line));
  EXPECT_EQ(line, "two");
  EXPECT_EQ(reader.line_number(), 3);
  EXPECT_FALSE(reader.next(line));
}

TEST_F(LineReaderTest, SkipsALineBeyondTheBoundAndGoesOn) {
  LineReader reader(write("12345\n123456\nend\n"), 5);
  std::string line;
  ASSERT_TRUE(reader.next(line));
  EXPECT_FALSE(reader.was_too_long());
  ASSERT_TRUE(reader.next(line));
  EXPECT_TRUE(reader.was_too_long());
  EXPECT_EQ(line, "");
  ASSERT_TRUE(reader.next(line));
  EXPECT_EQ(line, "end");
  EXPECT_FALSE(reader.was_too_long());
}

TEST_F(LineReaderTest, RefusesMissingFilesAndFolders) {
  const auto code = [](const std::string& path) {
    try {
      LineReader reader(path);
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), ::testing::HasSubstr(path));
      return e.code();
    }
    return Code::kOk;
  };
  EXPECT_EQ(code(path_ + ".missing"), Code::kNotFound);
  EXPECT_EQ(code(::testing::TempDir()), Code::kInvalidArgument);
}

}  // namespace
}  // namespace sluice::apps
