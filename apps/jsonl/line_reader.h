// Lines of a file or of standard input, with a bound on their length. One thread.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

namespace sluice::apps {

class LineReader {
 public:
  /// `path` "-" is standard input. Throws Error{kNotFound, kIo}.
  explicit LineReader(const std::string& path, std::int64_t max_line_bytes = kMaxLineBytes);

  /// Reads the next line without its end ("\n" or "\r\n") into `line`; false at the end of the input. Throws
  /// Error{kIo} if reading fails. A line longer than the bound is skipped to its end, and was_too_long() says
  /// so.
  bool next(std::string& line);
  bool was_too_long() const { return too_long_; }
  std::int64_t line_number() const { return line_number_; }  ///< of the line read last, from 1
  const std::string& name() const { return name_; }          ///< the path, or "<stdin>"

  /// Far above any prompt that fits a context, far below what would trouble a machine.
  static constexpr std::int64_t kMaxLineBytes = std::int64_t{64} << 20;

 private:
  struct Close {
    void operator()(std::FILE* file) const noexcept;
  };
  std::string name_;
  std::int64_t max_line_bytes_;
  std::unique_ptr<std::FILE, Close> file_;
  std::int64_t line_number_ = 0;
  bool too_long_ = false;
};

}  // namespace sluice::apps
