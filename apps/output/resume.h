// Reads the output of an interrupted run: which requests are done, and where to go on. One thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "apps/output/waiting_lines.h"

namespace sluice::apps {

/// What identifies a request in an output.
struct RequestKey {
  std::string id;  ///< JSON text
  std::span<const std::int32_t> prompt_ids;
  std::uint64_t hash = 0;  ///< of everything that decides its result
};

/// A run that was interrupted may have written results past others that never finished. Lines up to the first
/// gap stay where they are; the ones behind it are put into `waiting`, to be written when their turn comes.
struct ResumePoint {
  std::int64_t next_index = 0;  ///< of the first request without a line
  std::int64_t keep_bytes = 0;  ///< length of the output up to there; the caller cuts it there
};

/// A last line without its end is dropped. Throws Error{kCorrupt} "file:line: ..." for another line that is
/// no result, Error{kInvalidArgument} for one whose id is not (or twice) in `requests`, whose prompt differs,
/// or that stands twice; Error{kIo}. `waiting` is synced when it returns.
ResumePoint scan_output(const std::filesystem::path& output, std::span<const RequestKey> requests,
                        WaitingLines& waiting);

}  // namespace sluice::apps
