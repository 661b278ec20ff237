#include <sys/fsuid.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/format/resolve.h"
#include "tests/kernels/checkpoint_fixture.h"

namespace sluice::kernels {
namespace {

namespace fs = std::filesystem;
using testing::content_of;
using testing::error_of;
using ::testing::HasSubstr;
using testing::ScratchFolder;
using testing::TinyCheckpoint;
using testing::write_checkpoint;

TEST(ResolveModel, TakesAStoreAsItIs) {
  ScratchFolder scratch;
  testing::write_store(scratch / "store", testing::plan_of(testing::tiny_spec()));
  const ResolvedModel model = resolve_model(scratch / "store", {});
  EXPECT_EQ(model.store, scratch / "store");
  EXPECT_FALSE(model.converted);
}

TEST(ResolveModel, ConvertsOnceAndAgainWhenTheCheckpointChanges) {
  ScratchFolder scratch;
  TinyCheckpoint checkpoint;
  write_checkpoint(scratch / "model", checkpoint);
  const fs::path store = scratch / "model/sluice-store";
  const auto resolve = [&] {
    const ResolvedModel model = resolve_model(scratch / "model", {});
    EXPECT_EQ(model.store, store);
    return model.converted;
  };
  EXPECT_TRUE(resolve());
  EXPECT_FALSE(resolve());
  const auto bytes = content_of(store);

  // Each change is one the user can make; after each, one conversion and no more.
  const fs::path weights = scratch / "model/model.safetensors";
  const std::vector<std::pair<const char*, std::function<void()>>> changes = {
      {"time", [&] { fs::last_write_time(weights, fs::last_write_time(weights) + std::chrono::seconds(1)); }},
      {"tensors",
       [&] {
         const auto time = fs::last_write_time(weights);
         checkpoint.spec.ffn_dim = 48;
         write_checkpoint(scratch / "model", checkpoint);
         fs::last_write_time(weights, time);
       }},
      {"config",
       [&] {
         nlohmann::json config = testing::config_json(checkpoint.spec);
         config["eos_token_id"] = 1;
         testing::write_file(scratch / "model/config.json", config.dump());
       }},
      {"tokenizer", [&] { testing::write_file(scratch / "model/merges.txt", "#version: 0.3\n"); }},
      {"no tokenizer", [&] { fs::remove(scratch / "model/vocab.json"); }},
      {"corrupt manifest", [&] { testing::write_file(store / "manifest.json", "{"); }},
      {"other version", [&] { testing::write_file(store / "manifest.json", R"({"format_version": 0})"); }},
      {"truncated store", [&] { fs::resize_file(store / "output.bin", 4096); }},
  };
  for (const auto& [what, change] : changes) {
    change();
    EXPECT_TRUE(resolve()) << what;
    EXPECT_FALSE(resolve()) << what;
    EXPECT_NO_THROW(read_manifest(store)) << what;
  }
  EXPECT_NE(content_of(store), bytes);
}

TEST(ResolveModel, KeepsTheStoreWhereItIsAsked) {
  ScratchFolder scratch;
  write_checkpoint(scratch / "model", {});
  ResolveOptions options;
  options.store = scratch / "elsewhere/store";
  EXPECT_TRUE(resolve_model(scratch / "model", options).converted);
  EXPECT_FALSE(resolve_model(scratch / "model", options).converted);
  EXPECT_TRUE(is_store(scratch / "elsewhere/store"));
  EXPECT_FALSE(fs::exists(scratch / "model/sluice-store"));
  // A file has its store beside it, under its own name.
  EXPECT_EQ(resolve_model(scratch / "model/model.safetensors", {}).store,
            scratch / "model/model.sluice-store");
  // What is no store is never replaced.
  fs::create_directories(scratch / "letters");
  testing::write_file(scratch / "letters/one.txt", "dear");
  options.store = scratch / "letters";
  EXPECT_EQ(error_of([&] { resolve_model(scratch / "model", options); }).code(), Code::kInvalidArgument);
  EXPECT_TRUE(fs::exists(scratch / "letters/one.txt"));
}

/// Files are made with the rights of another user while it lives. For tests that run as root.
class OtherUser {
 public:
  OtherUser() : own_(::setfsuid(65534)) {}
  ~OtherUser() { ::setfsuid(static_cast<uid_t>(own_)); }

 private:
  int own_;
};

class ScopedVariable {
 public:
  ScopedVariable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    if (value != nullptr)
      ::setenv(name, value, 1);
    else
      ::unsetenv(name);
  }
  ~ScopedVariable() {
    if (old_)
      ::setenv(name_, old_->c_str(), 1);
    else
      ::unsetenv(name_);
  }

 private:
  const char* name_;
  std::optional<std::string> old_;
};

TEST(ResolveModel, UsesTheCacheFolderWhereTheCheckpointIsReadOnly) {
  ScratchFolder scratch;
  write_checkpoint(scratch / "model", {});
  fs::permissions(scratch.path(), fs::perms(0755));
  fs::permissions(scratch / "model", fs::perms(0555));
  fs::create_directory(scratch / "cache");
  fs::permissions(scratch / "cache", fs::perms::all);
  const OtherUser user;
  {
    const ScopedVariable cache("XDG_CACHE_HOME", (scratch / "cache").c_str());
    const ResolvedModel model = resolve_model(scratch / "model", {});
    EXPECT_TRUE(model.converted);
    EXPECT_EQ(model.store.parent_path(), scratch / "cache/sluice");
    EXPECT_THAT(model.store.filename().string(), HasSubstr("model-"));
    EXPECT_NO_THROW(read_manifest(model.store));
    EXPECT_FALSE(resolve_model(scratch / "model", {}).converted);
  }
  {
    const ScopedVariable cache("XDG_CACHE_HOME", "relative/is/ignored");
    const ScopedVariable home("HOME", (scratch / "cache").c_str());
    EXPECT_EQ(resolve_model(scratch / "model", {}).store.parent_path(), scratch / "cache/.cache/sluice");
  }
  const ScopedVariable cache("XDG_CACHE_HOME", nullptr);
  const ScopedVariable home("HOME", nullptr);
  const Error error = error_of([&] { resolve_model(scratch / "model", {}); });
  EXPECT_EQ(error.code(), Code::kIo);
  EXPECT_THAT(error.fix(), HasSubstr("--store"));
}

TEST(ResolveModel, UsesACurrentStoreInAReadOnlyFolder) {
  ScratchFolder scratch;
  write_checkpoint(scratch / "model", {});
  resolve_model(scratch / "model", {});
  fs::permissions(scratch.path(), fs::perms(0755));
  fs::permissions(scratch / "model", fs::perms(0555));
  const OtherUser user;
  const ResolvedModel model = resolve_model(scratch / "model", {});
  EXPECT_EQ(model.store, scratch / "model/sluice-store");
  EXPECT_FALSE(model.converted);
}

TEST(ResolveModel, IsConvertedByOneOfSeveralProcesses) {
  ScratchFolder scratch;
  TinyCheckpoint checkpoint;
  checkpoint.spec.num_layers = 8;  // long enough to overlap
  write_checkpoint(scratch / "model", checkpoint);
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    children.push_back(::fork());
    if (children.back() == 0) {
      int status = 3;
      try {
        const ResolvedModel model = resolve_model(scratch / "model", {});
        read_manifest(model.store);
        status = model.converted ? 1 : 0;
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
      }
      ::_exit(status);
    }
  }
  int converted = 0;
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_LE(WEXITSTATUS(status), 1);
    converted += WEXITSTATUS(status);
  }
  EXPECT_EQ(converted, 1);
  EXPECT_FALSE(fs::exists(scratch / "model/sluice-store.tmp"));
  EXPECT_FALSE(fs::exists(scratch / "model/sluice-store.lock"));
}

TEST(ResolveModel, SaysWhatIsMissing) {
  ScratchFolder scratch;
  const Error error = error_of([&] { resolve_model(scratch / "nowhere", {}); });
  EXPECT_EQ(error.code(), Code::kNotFound);
  EXPECT_THAT(error.what(), HasSubstr((scratch / "nowhere").string()));
}

}  // namespace
}  // namespace sluice::kernels
