// Results that are done before their turn. Memory is bounded: beyond a limit they wait in a file. One thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "core/store/posix_file.h"

namespace sluice::apps {

class WaitingLines {
 public:
  /// Text beyond `memory_bytes` waits in a nameless file under the system's temporary folder.
  explicit WaitingLines(std::int64_t memory_bytes);
  /// Every text goes to `file` as it comes, so that a killed run loses none; up to `memory_bytes` are kept in
  /// memory, too. What a killed run left in `file` is read back; a torn last entry is dropped.
  /// Throws Error{kIo}, or Error{kCorrupt} if `file` is something else.
  WaitingLines(std::int64_t memory_bytes, std::filesystem::path file);

  /// Throws Error{kIo} if the file cannot take it; the text then waits in memory, whatever the limit.
  void put(std::int64_t index, std::string text);
  bool contains(std::int64_t index) const { return entries_.contains(index); }
  /// The text of the lowest index, which stays. Throws Error{kIo}. Not when empty.
  std::string front() const;
  std::int64_t front_index() const { return entries_.begin()->first; }
  /// Forgets the lowest index.
  void pop_front();
  bool empty() const { return entries_.empty(); }
  std::int64_t size() const { return static_cast<std::int64_t>(entries_.size()); }
  /// Waits until the file is on disk. Throws Error{kIo}.
  void sync();
  /// Removes the named file. Only when nothing waits, or what waits was written elsewhere.
  void remove_file();

  template <class Visit>
  void for_each_index(const Visit& visit) const {
    for (const auto& [index, entry] : entries_) visit(index);
  }

  std::int64_t memory_bytes() const { return memory_bytes_; }  ///< held now
  std::int64_t file_bytes() const { return file_bytes_; }      ///< length of the file now

 private:
  struct Entry {
    std::string text;          ///< empty if it is only in the file
    std::int64_t offset = -1;  ///< of the text in the file; -1: only in memory
    std::int64_t bytes = 0;
  };
  void recover();
  std::int64_t append_to_file(std::int64_t index, const std::string& text);

  const std::int64_t memory_limit_;
  std::filesystem::path path_;  ///< empty: nameless
  bool write_through_;
  detail::UniqueFd file_;
  std::int64_t file_bytes_ = 0;
  std::int64_t memory_bytes_ = 0;
  std::map<std::int64_t, Entry> entries_;
};

}  // namespace sluice::apps
