#include "kernels/format/resolve.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <unistd.h>

#include "core/error.h"
#include "core/log.h"
#include "core/store/checksum.h"

namespace sluice::kernels {
namespace {

namespace fs = std::filesystem;

/// "", "-bitmap", "-int4", "-bitmap-s0.8": stores of one checkpoint in several formats live side by side.
std::string name_suffix(const FormatConfig& formats) {
  std::string suffix;
  if (formats.format != Encoding::kDense) {
    suffix = fmt::format("-{}", encoding_name(formats.format));
  } else if (formats.compress) {  // which is about what is dense
    suffix = "-int4";
  }
  if (formats.sparsity > 0) suffix += fmt::format("-s{}", formats.sparsity);
  return suffix;
}

fs::path place_beside(const fs::path& model, const std::string& suffix) {
  if (fs::is_directory(model)) return model / ("sluice-store" + suffix);
  return fs::absolute(model).parent_path() / (model.stem().string() + ".sluice-store" + suffix);
}

/// Empty if the user has no cache folder.
fs::path place_in_cache(const fs::path& model, const std::string& suffix) {
  fs::path cache;
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg != nullptr && fs::path(xdg).is_absolute()) {
    cache = xdg;
  } else if (const char* home = std::getenv("HOME"); home != nullptr && fs::path(home).is_absolute()) {
    cache = fs::path(home) / ".cache";
  } else {
    return {};
  }
  const fs::path where = fs::canonical(model);
  const std::string text = where.string();
  return cache / "sluice" /
         fmt::format("{}-{:016x}{}", where.filename().string(),
                     store_checksum(std::as_bytes(std::span(text))), suffix);
}

/// Whether files can be made in the folder of `store`. Other trouble than missing rights is left to the
/// conversion, which reports it.
bool can_write_beside(const fs::path& store) {
  const fs::path probe = store.string() + fmt::format(".probe-{}", ::getpid());
  const int fd = ::open(probe.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return errno != EACCES && errno != EPERM && errno != EROFS;
  ::close(fd);
  ::unlink(probe.c_str());
  return true;
}

enum class StoreAge : std::uint8_t { kMissing, kCurrent, kOutdated };

StoreAge age_of(const fs::path& store, const CheckpointSource& source) {
  if (!is_store(store)) return StoreAge::kMissing;
  try {
    const Manifest manifest = read_manifest(store);
    const bool has_formats =
        std::ranges::equal(manifest.tensors, source.plan.formats, {}, &StoredTensor::format);
    if (manifest.source == source.plan.source && has_formats) return StoreAge::kCurrent;
    log_info("{}: its checkpoint or the formats have changed, converting it again", store.string());
  } catch (const Error& error) {
    log_info("{}: is not usable and is made again: {}", store.string(), error.what());
  }
  return StoreAge::kOutdated;
}

fs::path choose_place(const fs::path& model, const ResolveOptions& options, const CheckpointSource& source) {
  if (!options.store.empty()) return options.store;
  const std::string suffix = name_suffix(options.source.formats);
  const fs::path beside = place_beside(model, suffix);
  if (can_write_beside(beside)) return beside;
  if (is_store(beside) && age_of(beside, source) == StoreAge::kCurrent) return beside;
  const fs::path cached = place_in_cache(model, suffix);
  SLUICE_CHECK(
      !cached.empty(), Code::kIo,
      fmt::format("{}: cannot be written, and there is no cache folder", beside.parent_path().string()),
      "give --store FOLDER for the converted model, or set XDG_CACHE_HOME");
  return cached;
}

}  // namespace

ResolvedModel resolve_model(const fs::path& model, const ResolveOptions& options) {
  if (is_store(model)) {
    const FormatConfig& formats = options.source.formats;
    SLUICE_CHECK(formats.format == Encoding::kDense && formats.sparsity == 0 && !formats.compress,
                 Code::kInvalidArgument,
                 fmt::format("{}: is a model store, whose formats are fixed", model.string()),
                 "leave --format, --sparsity and --compress-weight out, or give the checkpoint");
    return {model, false};
  }
  const CheckpointSource source = open_source(model, options.source);
  const fs::path store = choose_place(model, options, source);
  if (age_of(store, source) == StoreAge::kCurrent) return {store, false};

  StoreLock lock = lock_store(store);
  // Another process may have made it while this one waited.
  if (age_of(store, source) == StoreAge::kCurrent) return {store, false};
  log_info("{}: converting into {}, once", model.string(), store.string());
  ConvertOptions convert;
  convert.existing = ExistingStore::kReplace;
  convert.stop = options.stop;
  convert.progress = options.progress;
  convert_source(source, std::move(lock), convert);
  return {store, true};
}

}  // namespace sluice::kernels
