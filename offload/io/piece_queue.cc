#include "offload/io/piece_queue.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "core/errno_text.h"
#include "core/log.h"
#include "core/units.h"

namespace sluice::offload {
namespace {

constexpr std::int64_t align_down(std::int64_t n) { return n / kPageAlign * kPageAlign; }

const char* verb(IoOp op) { return op == IoOp::kRead ? "read" : "write"; }

const char* remedy(int error, IoOp op) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return "free space there, lower --disk-memory, or name another folder with --disk-dir";
    case EIO:
      return op == IoOp::kRead
                 ? "the disk may be failing: look into the kernel's log, then copy the file again"
                 : "the disk may be failing: look into the kernel's log, or name another --disk-dir";
    case EINVAL:
      return "the file system may not support direct I/O: run with buffered I/O";
    default:
      return "look into the kernel's log";
  }
}

Status io_failure(const std::string& what, const std::string& fix) {
  return {Code::kIo, Error(Code::kIo, what, fix).what()};
}

}  // namespace

PieceQueue::PieceQueue(int queue_depth, std::int64_t piece_bytes, int max_requests)
    : piece_bytes_(piece_bytes), to_cut_(max_requests), to_resume_(queue_depth), finished_(max_requests) {
  SLUICE_ASSERT(queue_depth > 0 && max_requests > 0 && piece_bytes > 0 && piece_bytes % kPageAlign == 0);
  requests_.resize(static_cast<std::size_t>(max_requests));
  slots_.resize(static_cast<std::size_t>(queue_depth));
  for (std::int32_t i = max_requests; i-- > 0;) free_requests_.push_back(i);
  for (std::int32_t i = queue_depth; i-- > 0;) free_slots_.push_back(i);
}

FileId PieceQueue::add_file(std::string name) {
  names_.push_back(std::move(name));
  return static_cast<FileId>(names_.size() - 1);
}

bool PieceQueue::try_add(const IoRequest& request) {
  SLUICE_ASSERT(request.file >= 0 && request.file < num_files());
  SLUICE_ASSERT(request.bytes >= 0 && request.offset >= 0);
  SLUICE_ASSERT(request.bytes % kPageAlign == 0 && request.offset % kPageAlign == 0);
  SLUICE_ASSERT(reinterpret_cast<std::uintptr_t>(request.data) % static_cast<std::uintptr_t>(kPageAlign) ==
                0);
  SLUICE_ASSERT(request.data != nullptr || request.bytes == 0);
  if (free_requests_.empty()) return false;
  const std::int32_t index = free_requests_.back();
  free_requests_.pop_back();
  requests_[index] = Request{};
  requests_[index].request = request;
  ++held_;
  if (request.bytes == 0) {
    finished_.push(index);
  } else {
    to_cut_.push(index);
  }
  return true;
}

std::optional<Piece> PieceQueue::next() {
  while (!to_resume_.empty()) {
    const std::int32_t slot = to_resume_.pop();
    if (requests_[slots_[slot].request].failure.ok()) return hand_out(slot);
    end_piece(slots_[slot], 0);  // its request failed meanwhile
  }
  if (to_cut_.empty() || free_slots_.empty()) return std::nullopt;
  const std::int32_t index = to_cut_.front();
  Request& r = requests_[index];
  const std::int32_t slot = free_slots_.back();
  free_slots_.pop_back();
  const std::int64_t bytes = std::min(piece_bytes_, r.request.bytes - r.handed_bytes);
  slots_[slot] = Slot{};
  slots_[slot].piece = {
      slot, r.request.op, r.request.file, r.request.offset + r.handed_bytes, r.request.data + r.handed_bytes,
      bytes};
  slots_[slot].request = index;
  slots_[slot].whole_bytes = bytes;
  r.handed_bytes += bytes;
  ++r.pieces;
  if (r.handed_bytes == r.request.bytes) to_cut_.pop();
  return hand_out(slot);
}

Piece PieceQueue::hand_out(std::int32_t slot) {
  ++out_;
  return slots_[slot].piece;
}

void PieceQueue::finish(std::int32_t slot_index, std::int64_t result) {
  SLUICE_ASSERT(slot_index >= 0 && slot_index < static_cast<std::int64_t>(slots_.size()));
  Slot& slot = slots_[slot_index];
  SLUICE_ASSERT(slot.piece.bytes > 0 && out_ > 0 && result <= slot.piece.bytes);
  --out_;
  if (!requests_[slot.request].failure.ok()) return end_piece(slot, 0);  // another piece failed, or cancelled
  if (result == slot.piece.bytes) return end_piece(slot, slot.whole_bytes);
  if (result >= 0) return move_on(slot, result);
  const int error = static_cast<int>(-result);
  if (error == EINTR || error == EAGAIN) {
    if (slot.idle_tries++ < kMaxIdleTries) return to_resume_.push(slot_index);
  } else if (error == EIO && slot.io_errors++ < kIoErrorRetries) {
    log_warn("{}: {} of {} at offset {} failed: {}; trying once more", file_name(slot.piece.file),
             verb(slot.piece.op), format_bytes(slot.piece.bytes), slot.piece.offset, errno_text(error));
    return to_resume_.push(slot_index);
  }
  fail_with_errno(slot, error);
}

// A short transfer goes on at the last block boundary that it passed, since O_DIRECT takes no other offset.
// At the end of a file that is no multiple of a block the system gives the same part of the last block again
// and again, and at the end of one that is, nothing: both are the end.
void PieceQueue::move_on(Slot& slot, std::int64_t result) {
  const std::int64_t whole_blocks = align_down(result);
  const std::int64_t end = result - whole_blocks;
  slot.same_ends = whole_blocks == 0 && end == slot.last_end ? slot.same_ends + 1 : 0;
  slot.last_end = end;
  if (slot.piece.op == IoOp::kRead && (result == 0 || slot.same_ends >= kSameEnds))
    return fail_at_end(slot, result);
  slot.piece.offset += whole_blocks;
  slot.piece.data += whole_blocks;
  slot.piece.bytes -= whole_blocks;
  slot.idle_tries = whole_blocks > 0 ? 0 : slot.idle_tries + 1;
  if (slot.idle_tries <= kMaxIdleTries) return to_resume_.push(slot.piece.slot);
  fail(slot, io_failure(fmt::format("{}: {} of {} bytes at offset {}: {} transfers in a row moved nothing",
                                    file_name(slot.piece.file), verb(slot.piece.op), slot.piece.bytes,
                                    slot.piece.offset, slot.idle_tries),
                        remedy(EIO, slot.piece.op)));
}

void PieceQueue::fail_with_errno(Slot& slot, int error) {
  fail(slot, io_failure(fmt::format("{}: {} of {} bytes at offset {} failed: {} (errno {})",
                                    file_name(slot.piece.file), verb(slot.piece.op), slot.piece.bytes,
                                    slot.piece.offset, errno_text(error), error),
                        remedy(error, slot.piece.op)));
}

void PieceQueue::fail_at_end(Slot& slot, std::int64_t result) {
  const IoRequest& request = requests_[slot.request].request;
  const std::int64_t end = slot.piece.offset + result;
  fail(slot,
       io_failure(
           fmt::format("{}: read at offset {}: expected {} bytes, got {}: the file ends at or before byte {}",
                       file_name(slot.piece.file), request.offset, request.bytes, end - request.offset, end),
           "the file is truncated: make or copy it again"));
}

void PieceQueue::fail(Slot& slot, Status failure) {
  requests_[slot.request].failure = std::move(failure);
  // Requests are cut one after another, so one of which a piece is out is either cut to its end or in front.
  if (!to_cut_.empty() && to_cut_.front() == slot.request) to_cut_.pop();
  end_piece(slot, 0);
}

void PieceQueue::end_piece(Slot& slot, std::int64_t moved_bytes) {
  Request& r = requests_[slot.request];
  r.moved_bytes += moved_bytes;
  --r.pieces;
  slot.piece.bytes = 0;
  free_slots_.push_back(slot.piece.slot);
  const bool cut = r.handed_bytes == r.request.bytes || !r.failure.ok();
  if (r.pieces == 0 && cut) finished_.push(slot.request);
}

void PieceQueue::cancel() {
  const Status cancelled(Code::kCancelled, "the transfer was cancelled");
  while (!to_cut_.empty()) {
    const std::int32_t index = to_cut_.pop();
    Request& r = requests_[index];
    r.failure = cancelled;
    if (r.pieces == 0) finished_.push(index);
  }
  for (Slot& slot : slots_) {
    if (slot.piece.bytes > 0 && requests_[slot.request].failure.ok())
      requests_[slot.request].failure = cancelled;
  }
  while (!to_resume_.empty()) end_piece(slots_[to_resume_.pop()], 0);
}

std::optional<FinishedRequest> PieceQueue::pop_finished() {
  if (finished_.empty()) return std::nullopt;
  const std::int32_t index = finished_.pop();
  Request& r = requests_[index];
  FinishedRequest done{r.request, {r.request.tag, std::move(r.failure), r.moved_bytes}};
  free_requests_.push_back(index);
  --held_;
  return done;
}

}  // namespace sluice::offload
