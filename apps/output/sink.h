// Where result text goes: a file, or standard output. One thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace sluice::apps {

class Sink {
 public:
  virtual ~Sink() = default;
  /// Hands all of `text` to the operating system before it returns. Throws Error{kIo}; a file then ends where
  /// it ended before, so that it never holds half a result.
  virtual void write(std::string_view text) = 0;
  /// Makes what was written durable. Throws Error{kIo}. Nothing is written afterwards.
  virtual void finish() = 0;
};

/// Whether a file with at least one byte is there.
bool has_content(const std::filesystem::path& path);

/// Standard output.
std::unique_ptr<Sink> make_stdout_sink();

/// A file cut to `keep_bytes` (0 for a fresh one) and written from there; created if absent. Devices and
/// pipes
/// (/dev/null, a fifo) are written as they are. Throws Error{kIo, kNotFound}.
std::unique_ptr<Sink> make_file_sink(const std::filesystem::path& path, std::int64_t keep_bytes);

}  // namespace sluice::apps
