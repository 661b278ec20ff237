#include "apps/output/ordered_writer.h"

#include "core/error.h"

namespace sluice::apps {

OrderedWriter::OrderedWriter(Sink& sink, WaitingLines& waiting, std::int64_t next_index)
    : sink_(sink), waiting_(waiting), next_index_(next_index) {
  write_ready();
}

void OrderedWriter::put(std::int64_t index, std::string text) {
  SLUICE_ASSERT(index >= next_index_);
  if (index != next_index_) {
    waiting_.put(index, std::move(text));
    return;
  }
  try {
    sink_.write(text);
  } catch (...) {
    waiting_.put(index, std::move(text));  // it is not lost while there is another place for it
    throw;
  }
  ++next_index_;
  ++num_written_;
  write_ready();
}

void OrderedWriter::write_ready() {
  while (!waiting_.empty() && waiting_.front_index() == next_index_) write_front();
}

void OrderedWriter::write_waiting() {
  while (!waiting_.empty()) write_front();
}

void OrderedWriter::write_front() {
  sink_.write(waiting_.front());
  next_index_ = waiting_.front_index() + 1;
  ++num_written_;
  waiting_.pop_front();
}

}  // namespace sluice::apps
