#include "apps/output/ordered_writer.h"

#include <algorithm>
#include <csignal>
#include <numeric>
#include <random>
#include <sys/resource.h>

#include <gmock/gmock.h>

#include "core/error.h"
#include "tests/apps/temp_dir.h"

namespace sluice::apps {
namespace {

/// Collects text; fails from the write with that number on.
class ScriptedSink final : public Sink {
 public:
  explicit ScriptedSink(int fail_from = -1) : fail_from_(fail_from) {}
  void write(std::string_view text) override {
    if (fail_from_ >= 0 && writes_ >= fail_from_) throw Error(Code::kIo, "no space", "make room");
    ++writes_;
    text_ += text;
  }
  void finish() override {}
  void heal() { fail_from_ = -1; }
  const std::string& text() const { return text_; }

 private:
  int fail_from_;
  int writes_ = 0;
  std::string text_;
};

std::string line_of(std::int64_t index) { return fmt::format("result {}\n", index); }

std::string lines_until(std::int64_t end) {
  std::string text;
  for (std::int64_t i = 0; i < end; ++i) text += line_of(i);
  return text;
}

TEST(OrderedWriter, WritesInInputOrderWhateverTheOrderOfCompletion) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    std::vector<std::int64_t> order(100);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(seed));
    ScriptedSink sink;
    WaitingLines waiting(/*memory_bytes=*/200);  // most of them wait in the file
    OrderedWriter writer(sink, waiting, 0);
    std::int64_t most_in_memory = 0;
    for (std::int64_t index : order) {
      writer.put(index, line_of(index));
      most_in_memory = std::max(most_in_memory, waiting.memory_bytes());
    }
    EXPECT_EQ(sink.text(), lines_until(100)) << "seed " << seed;
    EXPECT_LE(most_in_memory, 200) << "seed " << seed;
    EXPECT_EQ(waiting.file_bytes(), 0) << "the file starts anew when nothing waits";
  }
}

TEST(OrderedWriter, WritesALineAsSoonAsItIsItsTurn) {
  ScriptedSink sink;
  WaitingLines waiting(1000);
  OrderedWriter writer(sink, waiting, 0);
  writer.put(1, line_of(1));
  EXPECT_EQ(sink.text(), "");
  writer.put(0, line_of(0));
  EXPECT_EQ(sink.text(), lines_until(2));
}

TEST(OrderedWriter, WritesAcrossGapsWhenARunEndsEarly) {
  ScriptedSink sink;
  WaitingLines waiting(0);
  OrderedWriter writer(sink, waiting, 0);
  for (std::int64_t index : {5, 0, 3}) writer.put(index, line_of(index));
  writer.write_waiting();
  EXPECT_EQ(sink.text(), line_of(0) + line_of(3) + line_of(5));
  EXPECT_EQ(writer.num_written(), 3);
}

TEST(OrderedWriter, LosesNothingWhenTheSinkFails) {
  ScriptedSink sink(/*fail_from=*/1);
  WaitingLines waiting(1000);
  OrderedWriter writer(sink, waiting, 0);
  writer.put(0, line_of(0));
  writer.put(2, line_of(2));
  EXPECT_THROW(writer.put(1, line_of(1)), Error);
  EXPECT_EQ(waiting.size(), 2);
  sink.heal();
  writer.write_waiting();
  EXPECT_EQ(sink.text(), lines_until(3));
}

TEST(WaitingLines, ComeBackAfterAKilledRunAndDropATornEntry) {
  const TempDir dir;
  const std::string file = dir / "waiting";
  {
    WaitingLines waiting(1000, file);
    waiting.put(7, line_of(7));
    waiting.put(3, line_of(3));
    waiting.put(9, line_of(9));
  }  // without remove_file: killed
  const std::string whole = read_text(file);
  const std::size_t last_entry = whole.rfind("9 ", whole.rfind("result") - 1);
  for (std::size_t cut = last_entry; cut <= whole.size(); ++cut) {
    write_text(file, whole.substr(0, cut));
    WaitingLines waiting(0, file);
    ASSERT_EQ(waiting.size(), cut == whole.size() ? 3 : 2) << cut;
    EXPECT_EQ(waiting.front_index(), 3);
    EXPECT_EQ(waiting.front(), line_of(3));
    waiting.pop_front();
    EXPECT_EQ(waiting.front(), line_of(7));
  }
}

TEST(WaitingLines, RefuseAFileOfSomethingElse) {
  const TempDir dir;
  for (const char* text :
       {"hello", "-1 3\nabc", "1 -3\n", "1x3\n", "99999999999999999999 1\na", "1 2\nab??"}) {
    write_text(dir / "waiting", text);
    try {
      WaitingLines waiting(0, dir / "waiting");
      ADD_FAILURE() << text;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kCorrupt) << text;
    }
  }
}

TEST(WaitingLines, KeepATextInMemoryThatTheFileCannotTake) {
  WaitingLines waiting(0, "/dev/full");
  EXPECT_THROW(waiting.put(0, line_of(0)), Error);
  EXPECT_EQ(waiting.front(), line_of(0));
}

TEST(FileSink, GoesOnFromTheBytesThatAreKept) {
  const TempDir dir;
  const std::string file = dir / "out";
  write_text(file, "kept\ntorn");
  auto sink = make_file_sink(file, 5);
  sink->write("next\n");
  sink->finish();
  EXPECT_EQ(read_text(file), "kept\nnext\n");
}

/// Files of this process may not grow beyond `bytes` while it lives: a disk that fills up in mid-line.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {.rlim_cur = bytes, .rlim_max = before_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, SIG_DFL);
  }

 private:
  rlimit before_ = {};
};

TEST(FileSink, CutsAwayALineThatFilledTheDiskHalfWay) {
  const TempDir dir;
  auto sink = make_file_sink(dir / "out", 0);
  sink->write("0123456789\n");
  {
    const FileSizeLimit limit(15);
    try {
      sink->write("abcdefghij\n");
      ADD_FAILURE();
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), ::testing::HasSubstr("failed at byte 11"));
      EXPECT_THAT(e.fix(), ::testing::HasSubstr("--resume"));
    }
  }
  EXPECT_EQ(read_text(dir / "out"), "0123456789\n");
  sink->write("next\n");
  EXPECT_EQ(read_text(dir / "out"), "0123456789\nnext\n");
}

TEST(WaitingLines, ReadBackWholeAfterTheDiskWasFull) {
  const TempDir dir;
  {
    WaitingLines waiting(0, dir / "waiting");
    waiting.put(4, line_of(4));
    const FileSizeLimit limit(18);
    EXPECT_THROW(waiting.put(6, line_of(6)), Error);
    EXPECT_EQ(waiting.size(), 2) << "the text waits in memory";
  }
  WaitingLines waiting(0, dir / "waiting");
  EXPECT_EQ(waiting.size(), 1);
  EXPECT_EQ(waiting.front(), line_of(4));
}

TEST(FileSink, ReportsAFullDisk) {
  auto sink = make_file_sink("/dev/full", 0);
  try {
    sink->write("x\n");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kIo);
    EXPECT_THAT(e.what(), ::testing::HasSubstr("No space left"));
  }
}

TEST(FileSink, NamesAPathThatCannotBeWritten) {
  const TempDir dir;
  EXPECT_THROW(make_file_sink(dir / "no/such/folder", 0), Error);
  EXPECT_THROW(make_file_sink(dir.path(), 0), Error);
}

}  // namespace
}  // namespace sluice::apps
