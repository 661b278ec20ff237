#include <csignal>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/store/checksum.h"
#include "core/store/read_tensor.h"
#include "core/units.h"
#include "tests/core/store_fixture.h"

namespace sluice {
namespace {

using testing::error_of;
using ::testing::HasSubstr;
using testing::plan_of;
using testing::ScratchFolder;
using testing::tiny_spec;
using testing::write_store;
using testing::write_tensors;

std::filesystem::path temporary(const std::filesystem::path& store) { return store.string() + ".tmp"; }

void expect_complete_store(const std::filesystem::path& store) {
  const Manifest manifest = read_manifest(store);
  for (std::size_t i = 0; i < manifest.tensors.size(); ++i) {
    EXPECT_EQ(read_stored_tensor(store, manifest, manifest.tensors[i]),
              testing::payload_of(manifest.tensors[i], i));
  }
  EXPECT_FALSE(std::filesystem::exists(temporary(store)));
  EXPECT_FALSE(std::filesystem::exists(store / "journal.jsonl"));
}

TEST(StoreWriter, TakesPiecesOfAnyLengthAndAlignment) {
  ScratchFolder scratch;
  ModelSpec spec = tiny_spec();
  spec.vocab_size = 60001;  // 2.9 MB: the unaligned pieces overflow the bounce buffer
  StoreWriter writer(StoreLock::acquire(scratch / "store"), plan_of(spec), ExistingStore::kRefuse);
  for (std::size_t i = 0; i < writer.tensors().size(); ++i) {
    const std::vector<std::byte> bytes = testing::payload_of(writer.tensors()[i], i);
    std::vector<std::byte> shifted(bytes.size() + 2 * kPageAlign);
    auto* aligned =
        reinterpret_cast<std::byte*>(align_up(reinterpret_cast<std::intptr_t>(shifted.data()), kPageAlign));
    std::copy(bytes.begin(), bytes.end(), aligned);
    const std::span<const std::byte> all(aligned, bytes.size());
    const std::size_t piece = i % 2 == 0 ? 8192 : 1000 + i;  // in place, and through the bounce buffer
    for (std::size_t at = 0; at < all.size(); at += piece)
      writer.append(all.subspan(at, std::min(piece, all.size() - at)));
    writer.finish_tensor(store_checksum(bytes), {});
  }
  writer.commit();
  expect_complete_store(scratch / "store");
}

TEST(StoreWriter, RefusesATensorOfTheWrongLength) {
  ScratchFolder scratch;
  StoreWriter writer(StoreLock::acquire(scratch / "store"), plan_of(tiny_spec()), ExistingStore::kRefuse);
  writer.append(std::vector<std::byte>(16));
  EXPECT_EQ(error_of([&] { writer.finish_tensor(0, {}); }).code(), Code::kInternal);
  EXPECT_EQ(error_of([&] { writer.append(std::vector<std::byte>(1 << 20)); }).code(), Code::kInternal);
  EXPECT_EQ(error_of([&] { writer.commit(); }).code(), Code::kInternal);
}

// A writer that goes away without commit leaves exactly what a killed process leaves.
TEST(StoreWriter, ContinuesBehindEveryTensorItFinished) {
  const auto num_tensors = static_cast<std::int64_t>(model_tensors(tiny_spec()).size());
  for (std::int64_t stop = 0; stop <= num_tensors; ++stop) {
    ScratchFolder scratch;
    {
      StoreWriter writer(StoreLock::acquire(scratch / "store"), plan_of(tiny_spec()), ExistingStore::kRefuse);
      EXPECT_EQ(writer.next_tensor(), 0);
      write_tensors(writer, stop);
      if (stop < num_tensors) writer.append(std::vector<std::byte>(20));  // in the middle of the next one
    }
    EXPECT_FALSE(is_store(scratch / "store"));
    StoreWriter writer(StoreLock::acquire(scratch / "store"), plan_of(tiny_spec()), ExistingStore::kRefuse);
    ASSERT_EQ(writer.next_tensor(), stop);
    EXPECT_EQ(writer.resumed_bytes() > 0, stop > 0);
    write_tensors(writer, num_tensors);
    writer.commit();
    expect_complete_store(scratch / "store");
  }
}

TEST(StoreWriter, SurvivesBeingKilledBetweenManifestAndRename) {
  ScratchFolder scratch;
  {
    StoreWriter writer(StoreLock::acquire(scratch / "store"), plan_of(tiny_spec()), ExistingStore::kRefuse);
    write_tensors(writer, static_cast<std::int64_t>(writer.tensors().size()));
    Manifest manifest{tiny_spec(), {}, writer.tensors(), {}, {}};
    testing::write_file(temporary(scratch / "store") / "manifest.json", manifest_to_json(manifest));
  }
  StoreWriter writer(StoreLock::acquire(scratch / "store"), plan_of(tiny_spec()), ExistingStore::kRefuse);
  EXPECT_EQ(writer.next_tensor(), static_cast<std::int64_t>(writer.tensors().size()));
  writer.commit();
  expect_complete_store(scratch / "store");
}

TEST(StoreWriter, DropsATornJournalLine) {
  ScratchFolder scratch;
  {
    StoreWriter writer(StoreLock::acquire(scratch / "store"), plan_of(tiny_spec()), ExistingStore::kRefuse);
    write_tensors(writer, 9);
  }
  const std::filesystem::path journal = temporary(scratch / "store") / "journal.jsonl";
  const std::string text = testing::read_file(journal);
  for (const std::string& torn :
       {text.substr(0, text.size() - 3), text + "{\"tensor\":9,\"check", text + "\n\n",
        text + "{\"tensor\":11,\"bytes\":64,\"checksum\":\"0000000000000000\",\"zeros\":0,\"error\":0}\n"}) {
    testing::write_file(journal, torn);
    StoreWriter writer(StoreLock::acquire(scratch / "store"), plan_of(tiny_spec()), ExistingStore::kRefuse);
    EXPECT_EQ(writer.next_tensor(), torn.size() < text.size() ? 8 : 9);
    testing::write_file(journal, text);
  }
}

TEST(StoreWriter, WritesAgainWhatTheUnsyncedFileLost) {
  ScratchFolder scratch;
  std::int64_t unit_start = 0;
  {
    StoreWriter writer(StoreLock::acquire(scratch / "store"), plan_of(tiny_spec()), ExistingStore::kRefuse);
    write_tensors(writer, 9);
    while (writer.tensors()[unit_start].file != writer.tensors()[8].file) ++unit_start;
  }
  const std::filesystem::path open_file = temporary(scratch / "store") / "layer-0000.bin";
  const std::string bytes = testing::read_file(open_file);
  testing::write_file(open_file, std::string(bytes.size(), '\0'));  // as after a power cut
  StoreWriter writer(StoreLock::acquire(scratch / "store"), plan_of(tiny_spec()), ExistingStore::kRefuse);
  EXPECT_EQ(writer.next_tensor(), unit_start);
  write_tensors(writer, static_cast<std::int64_t>(writer.tensors().size()));
  writer.commit();
  expect_complete_store(scratch / "store");
}

TEST(StoreWriter, StartsOverWhenThePlanDiffers) {
  const auto change_source = [](StorePlan& plan) { plan.source.text = "source v2\n"; };
  const auto change_spec = [](StorePlan& plan) { plan.spec.eos_id = 5; };
  const auto change_format = [](StorePlan& plan) { plan.formats.back() = WeightFormat::kDenseBF16; };
  for (const auto& change :
       std::vector<std::function<void(StorePlan&)>>{change_source, change_spec, change_format}) {
    ScratchFolder scratch;
    {
      StoreWriter writer(StoreLock::acquire(scratch / "store"), plan_of(tiny_spec()), ExistingStore::kRefuse);
      write_tensors(writer, 12);
    }
    StorePlan changed = plan_of(tiny_spec());
    change(changed);
    StoreWriter writer(StoreLock::acquire(scratch / "store"), changed, ExistingStore::kRefuse);
    EXPECT_EQ(writer.next_tensor(), 0);
    write_tensors(writer, static_cast<std::int64_t>(writer.tensors().size()));
    writer.commit();
    expect_complete_store(scratch / "store");
  }
}

TEST(StoreWriter, ReplacesAStoreOnlyWhenAsked) {
  ScratchFolder scratch;
  write_store(scratch / "store", plan_of(tiny_spec(), "old"));
  const Error error = error_of([&] { write_store(scratch / "store", plan_of(tiny_spec(), "new")); });
  EXPECT_EQ(error.code(), Code::kInvalidArgument);
  EXPECT_THAT(error.what(), HasSubstr("--force"));
  {
    StoreWriter writer(StoreLock::acquire(scratch / "store"), plan_of(tiny_spec(), "new"),
                       ExistingStore::kReplace);
    write_tensors(writer, 5);
    EXPECT_EQ(read_manifest(scratch / "store").source.text, "old")
        << "the old store stays until the new one is whole";
    write_tensors(writer, static_cast<std::int64_t>(writer.tensors().size()));
    writer.commit();
  }
  EXPECT_EQ(read_manifest(scratch / "store").source.text, "new");
  expect_complete_store(scratch / "store");
}

TEST(StoreWriter, NeverRemovesAFolderThatIsNoStore) {
  ScratchFolder scratch;
  std::filesystem::create_directories(scratch / "store");
  write_store(scratch / "store", plan_of(tiny_spec()));  // an empty folder may be used
  std::filesystem::create_directories(scratch / "mine");
  testing::write_file(scratch.path() / "mine" / "letter.txt", "dear");
  const auto write = [&](const char* name) {
    StoreWriter(StoreLock::acquire(scratch / name), plan_of(tiny_spec()), ExistingStore::kReplace);
  };
  EXPECT_EQ(error_of([&] { write("mine"); }).code(), Code::kInvalidArgument);
  std::filesystem::rename(scratch / "mine", scratch / "other.tmp");
  const Error error = error_of([&] { write("other"); });
  EXPECT_EQ(error.code(), Code::kInvalidArgument);
  EXPECT_THAT(error.what(), HasSubstr("other.tmp"));
  EXPECT_TRUE(std::filesystem::exists(scratch.path() / "other.tmp" / "letter.txt"));
}

TEST(StoreWriter, SaysWhichFileAFullDiskStopped) {
  ScratchFolder scratch;
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  const rlimit low{16384, old.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &low), 0);
  const Error error = error_of([&] { write_store(scratch / "store", plan_of(tiny_spec())); });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old), 0);
  EXPECT_EQ(error.code(), Code::kIo);
  EXPECT_THAT(error.what(), HasSubstr("store.tmp/layer-0000.bin"));
  EXPECT_THAT(error.fix(), HasSubstr("free space"));
  StoreWriter writer(StoreLock::acquire(scratch / "store"), plan_of(tiny_spec()), ExistingStore::kRefuse);
  EXPECT_GT(writer.next_tensor(), 0) << "what was finished before is kept";
}

TEST(StoreWriter, WorksBufferedAndStopsWhenATinyDiskIsFull) {
  ScratchFolder scratch;
  std::filesystem::create_directories(scratch / "disk");
  if (::mount("none", (scratch / "disk").c_str(), "tmpfs", 0, "size=128k") != 0) {
    GTEST_SKIP() << "needs the right to mount a tmpfs";
  }
  const std::filesystem::path store = scratch / "disk/store";
  const Error early = error_of([&] { write_store(store, plan_of(tiny_spec())); });
  EXPECT_EQ(early.code(), Code::kIo);
  EXPECT_THAT(early.what(), HasSubstr("KiB free"));
  const auto fill = [&](const char* size) {  // somebody else takes the space while we write
    EXPECT_EQ(::mount("none", (scratch / "disk").c_str(), "tmpfs", MS_REMOUNT, size), 0);
  };
  fill("size=1m");
  const Error error = error_of([&] {
    StoreWriter writer(StoreLock::acquire(store), plan_of(tiny_spec()), ExistingStore::kRefuse);
    write_tensors(writer, 2);
    fill("size=128k");
    write_tensors(writer, static_cast<std::int64_t>(writer.tensors().size()));
  });
  EXPECT_EQ(error.code(), Code::kIo);
  EXPECT_THAT(error.what(), HasSubstr("No space left on device"));
  EXPECT_THAT(error.what(), HasSubstr("store.tmp/"));
  EXPECT_THAT(error.fix(), HasSubstr("free space"));
  fill("size=1m");
  write_store(store, plan_of(tiny_spec()));
  expect_complete_store(store);
  EXPECT_EQ(::umount((scratch / "disk").c_str()), 0);
}

TEST(StoreWriter, NeedsAFolderItMayWrite) {
  ScratchFolder scratch;
  testing::write_file(scratch / "file", "x");
  const Error error = error_of([&] { write_store(scratch / "file/store", plan_of(tiny_spec())); });
  EXPECT_THAT(error.what(), HasSubstr((scratch / "file").string()));
  std::filesystem::create_directories(scratch / "sealed");
  std::filesystem::permissions(scratch / "sealed",
                               std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  // Root may write everywhere; another file system identity of this thread may not.
  const int own_identity = ::setfsuid(65534);
  const Error refused = error_of([&] { write_store(scratch / "sealed/store", plan_of(tiny_spec())); });
  ::setfsuid(static_cast<uid_t>(own_identity));
  EXPECT_EQ(refused.code(), Code::kIo);
  EXPECT_THAT(refused.fix(), HasSubstr("may write"));
}

TEST(StoreLock, IsHeldByOneProcessAndFreedWhenItDies) {
  ScratchFolder scratch;
  const std::filesystem::path store = scratch / "store";
  {
    const StoreLock lock = StoreLock::acquire(store);
    EXPECT_FALSE(StoreLock::try_acquire(store / "").has_value()) << "a trailing slash names the same store";
    EXPECT_TRUE(StoreLock::try_acquire(scratch / "other").has_value());
  }
  EXPECT_FALSE(std::filesystem::exists(store.string() + ".lock"));
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto lock = StoreLock::try_acquire(store);
    const char ok = lock ? 'y' : 'n';
    if (::write(ready[1], &ok, 1) != 1) ::_exit(2);
    ::pause();
  }
  char answer = 0;
  ASSERT_EQ(::read(ready[0], &answer, 1), 1);
  EXPECT_EQ(answer, 'y');
  EXPECT_FALSE(StoreLock::try_acquire(store).has_value());
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(StoreLock::try_acquire(store).has_value());
  for (const int end : ready) ::close(end);
}

TEST(StoreLock, NeedsAName) {
  for (const char* bad : {"/", ".", "..", "a/.."}) {
    EXPECT_EQ(error_of([&] { StoreLock::acquire(bad); }).code(), Code::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace sluice
