#include "apps/output/waiting_lines.h"

#include <array>
#include <cerrno>
#include <charconv>
#include <fcntl.h>
#include <span>
#include <sys/stat.h>
#include <unistd.h>

#include "core/errno_text.h"
#include "core/error.h"
#include "core/log.h"

namespace sluice::apps {
namespace {

// An entry of the file is "<index> <bytes>\n" and the text.
constexpr std::size_t kLongestHeader = 42;

detail::UniqueFd open_nameless() {
  const std::filesystem::path folder = std::filesystem::temp_directory_path();
  detail::UniqueFd fd(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd) return fd;
  std::string name = (folder / "sluice-waiting-XXXXXX").string();  // O_TMPFILE is not known everywhere
  fd = detail::UniqueFd(::mkostemp(name.data(), O_CLOEXEC));
  if (!fd)
    detail::throw_file_error(folder, "no file can be made for results that wait for their turn", errno);
  ::unlink(name.c_str());
  return fd;
}

struct Header {
  std::int64_t index = 0;
  std::int64_t bytes = 0;
  std::int64_t header_bytes = 0;
};
enum class HeaderState { kWhole, kTorn, kBad };

HeaderState parse_header(std::string_view text, Header& out) {
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  const auto index = std::from_chars(begin, end, out.index);
  if (index.ec != std::errc{} || out.index < 0) return HeaderState::kBad;
  if (index.ptr == end) return HeaderState::kTorn;
  if (*index.ptr != ' ') return HeaderState::kBad;
  if (index.ptr + 1 == end) return HeaderState::kTorn;
  const auto bytes = std::from_chars(index.ptr + 1, end, out.bytes);
  if (bytes.ec != std::errc{} || out.bytes < 0) return HeaderState::kBad;
  if (bytes.ptr == end) return HeaderState::kTorn;
  if (*bytes.ptr != '\n') return HeaderState::kBad;
  out.header_bytes = bytes.ptr + 1 - begin;
  return HeaderState::kWhole;
}

}  // namespace

WaitingLines::WaitingLines(std::int64_t memory_bytes) : memory_limit_(memory_bytes), write_through_(false) {}

WaitingLines::WaitingLines(std::int64_t memory_bytes, std::filesystem::path file)
    : memory_limit_(memory_bytes), path_(std::move(file)), write_through_(true) {
  file_ = detail::open_file(path_, O_RDWR | O_CREAT);
  recover();
}

void WaitingLines::recover() {
  struct stat info = {};
  if (fstat(file_.get(), &info) != 0) detail::throw_file_error(path_, "fstat", errno);
  std::array<char, kLongestHeader> text;
  std::int64_t at = 0;
  while (at < info.st_size) {
    const auto n = std::min<std::int64_t>(info.st_size - at, kLongestHeader);
    detail::read_at(file_, path_, at,
                    std::as_writable_bytes(std::span(text.data(), static_cast<std::size_t>(n))));
    Header header;
    const HeaderState state = parse_header({text.data(), static_cast<std::size_t>(n)}, header);
    SLUICE_CHECK(state != HeaderState::kBad, Code::kCorrupt,
                 fmt::format("{}: no entry of waiting results at byte {}", path_.string(), at),
                 "remove the file: the results in it are then computed again");
    const bool torn = state == HeaderState::kTorn || header.bytes > info.st_size - at - header.header_bytes;
    if (torn) break;
    entries_[header.index] = {.text = {}, .offset = at + header.header_bytes, .bytes = header.bytes};
    at += header.header_bytes + header.bytes;
  }
  if (at < info.st_size && ftruncate(file_.get(), at) != 0)
    detail::throw_file_error(path_, "truncate", errno);
  file_bytes_ = at;
}

std::int64_t WaitingLines::append_to_file(std::int64_t index, const std::string& text) {
  if (!file_) file_ = open_nameless();
  const std::string header = fmt::format("{} {}\n", index, text.size());
  const std::string entry = header + text;
  try {
    detail::write_at(file_, path_.empty() ? std::filesystem::temp_directory_path() : path_, file_bytes_,
                     std::as_bytes(std::span(entry)));
  } catch (...) {
    // Without the torn entry the file still reads back; if it stays, recover() drops it.
    if (ftruncate(file_.get(), file_bytes_) != 0) log_debug("torn entry stays: {}", errno_text(errno));
    throw;
  }
  const std::int64_t offset = file_bytes_ + static_cast<std::int64_t>(header.size());
  file_bytes_ += static_cast<std::int64_t>(entry.size());
  return offset;
}

void WaitingLines::put(std::int64_t index, std::string text) {
  SLUICE_ASSERT(!contains(index));
  const auto bytes = static_cast<std::int64_t>(text.size());
  const bool fits = memory_bytes_ + bytes <= memory_limit_;
  Entry& entry = entries_[index];
  entry = {.text = std::move(text), .offset = -1, .bytes = bytes};
  memory_bytes_ += bytes;
  if (fits && !write_through_) return;
  entry.offset = append_to_file(index, entry.text);
  if (fits) return;
  entry.text = {};
  memory_bytes_ -= bytes;
}

std::string WaitingLines::front() const {
  const Entry& entry = entries_.begin()->second;
  if (!entry.text.empty() || entry.bytes == 0) return entry.text;
  std::string text(static_cast<std::size_t>(entry.bytes), '\0');
  detail::read_at(file_, path_, entry.offset, std::as_writable_bytes(std::span(text)));
  return text;
}

void WaitingLines::pop_front() {
  memory_bytes_ -= static_cast<std::int64_t>(entries_.begin()->second.text.size());
  entries_.erase(entries_.begin());
  if (!entries_.empty() || file_bytes_ == 0) return;
  // Nothing waits: the file starts anew, so that it stays about as long as what waits at once.
  if (ftruncate(file_.get(), 0) != 0) {
    log_debug("{}: truncate: {}", path_.string(), errno_text(errno));
    return;  // it only grows
  }
  file_bytes_ = 0;
}

void WaitingLines::sync() {
  if (file_) detail::sync_file(file_, path_);
}

void WaitingLines::remove_file() {
  if (path_.empty()) return;
  std::error_code error;
  std::filesystem::remove(path_, error);
  if (error) log_warn("{} could not be removed: {}", path_.string(), error.message());
}

}  // namespace sluice::apps
