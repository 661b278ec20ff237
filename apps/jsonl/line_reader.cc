#include "apps/jsonl/line_reader.h"

#include <cerrno>
#include <filesystem>

#include "core/errno_text.h"
#include "core/error.h"
#include "core/units.h"

namespace sluice::apps {

void LineReader::Close::operator()(std::FILE* file) const noexcept {
  if (file != stdin) std::fclose(file);
}

LineReader::LineReader(const std::string& path, std::int64_t max_line_bytes)
    : name_(path == "-" ? "<stdin>" : path), max_line_bytes_(max_line_bytes) {
  if (path == "-") {
    file_.reset(stdin);
    return;
  }
  // fopen opens a folder without a word and fails at the first read.
  std::error_code ignored;
  SLUICE_CHECK(!std::filesystem::is_directory(path, ignored), Code::kInvalidArgument,
               fmt::format("{} is a folder", path), "give a file with one request per line");
  file_.reset(std::fopen(path.c_str(), "re"));
  if (!file_) {
    const int error = errno;
    throw Error(error == ENOENT ? Code::kNotFound : Code::kIo,
                fmt::format("cannot read {}: {}", path, errno_text(error)),
                "check the path and its permissions");
  }
}

bool LineReader::next(std::string& line) {
  line.clear();
  too_long_ = false;
  std::int64_t bytes = 0;
  for (;;) {
    const int c = getc_unlocked(file_.get());
    if (c == EOF) {
      SLUICE_CHECK(std::ferror(file_.get()) == 0, Code::kIo,
                   fmt::format("reading {} failed after line {}: {}", name_, line_number_, errno_text(errno)),
                   "check the disk or the program that writes the pipe");
      if (bytes == 0) return false;
      break;
    }
    if (c == '\n') break;
    if (++bytes <= max_line_bytes_) {
      line.push_back(static_cast<char>(c));
    } else {
      too_long_ = true;
    }
  }
  ++line_number_;
  if (too_long_) line.clear();
  if (!line.empty() && line.back() == '\r') line.pop_back();
  return true;
}

}  // namespace sluice::apps
