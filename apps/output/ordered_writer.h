// Results come in order of completion and leave in order of the input. One thread.
#pragma once

#include <cstdint>
#include <string>

#include "apps/output/sink.h"
#include "apps/output/waiting_lines.h"

namespace sluice::apps {

class OrderedWriter {
 public:
  /// Writes index `next_index` first. `waiting` may hold results from before, of which those whose turn it is
  /// are written at once (Error{kIo}); both outlive the writer.
  OrderedWriter(Sink& sink, WaitingLines& waiting, std::int64_t next_index);

  /// Writes `text` and what follows it if it is its turn, else lets it wait. Each index comes once.
  /// Throws Error{kIo} if sink or file fail; what waits stays there.
  void put(std::int64_t index, std::string text);
  /// Writes all that waits, in order, across the gaps of what never finished: for a run that ends early.
  void write_waiting();

  std::int64_t next_index() const { return next_index_; }
  std::int64_t num_written() const { return num_written_; }

 private:
  void write_front();
  void write_ready();

  Sink& sink_;
  WaitingLines& waiting_;
  std::int64_t next_index_;
  std::int64_t num_written_ = 0;
};

}  // namespace sluice::apps
