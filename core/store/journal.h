// What a conversion has finished, so that a killed one continues. A file of JSON lines in the temporary
// folder; FORMAT.md, "journal". Belongs to one thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/store/manifest.h"
#include "core/store/posix_file.h"

namespace sluice::detail {

struct FinishedTensor {
  std::int64_t bytes = 0;
  std::uint64_t checksum = 0;
  TensorStats stats;
};

struct JournalState {
  std::vector<FinishedTensor> tensors;  ///< in model order
  std::int64_t synced_units = 0;        ///< files that were synced as a whole
};

class Journal {
 public:
  /// Reads what `file` says about the conversion described by `identity`; a torn last line is ignored. Empty
  /// state if the file is missing or describes another conversion.
  static JournalState read(const std::filesystem::path& file, const std::string& identity);

  /// Replaces `file` by one that holds `state`, and opens it for more.
  Journal(const std::filesystem::path& file, const std::string& identity, const JournalState& state);

  void tensor_finished(const FinishedTensor& tensor);
  /// Call after the unit's file was synced; makes everything recorded so far durable.
  void unit_synced();

 private:
  void append(const std::string& line);

  std::filesystem::path file_;
  UniqueFd fd_;
  std::int64_t size_ = 0, num_tensors_ = 0, num_units_ = 0;
};

}  // namespace sluice::detail
