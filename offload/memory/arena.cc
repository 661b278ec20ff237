#include "offload/memory/arena.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <sys/mman.h>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "core/errno_text.h"
#include "core/error.h"
#include "core/log.h"
#include "core/units.h"
#include "offload/memory/usable_memory.h"

namespace sluice::offload {
namespace {

constexpr std::int64_t kHugePage = 2_MiB;
constexpr std::int64_t kTouchChunk =
    64_MiB;  // long enough to pay for a system call, short enough to share out

[[noreturn]] void throw_refused(Tier tier, std::int64_t bytes, const std::string& why) {
  const std::int64_t usable = usable_host_bytes();
  throw Error(
      Code::kOutOfMemory,
      fmt::format("{} memory: the system refused {} ({}); {} usable now", tier_name(tier),
                  format_bytes(bytes), why, format_bytes(usable)),
      fmt::format("lower {}, or raise the limit of the process (ulimit -v, its cgroup) or of the machine",
                  budget_option(tier)));
}

/// Maps `bytes` at a multiple of the huge page: maps one huge page more and cuts off both ends.
std::span<std::byte> map_anonymous(Tier tier, std::int64_t bytes) {
  if (bytes == 0) return {};
  const std::int64_t slack = bytes >= kHugePage ? kHugePage : 0;
  void* mapped = mmap(nullptr, static_cast<std::size_t>(bytes + slack), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw_refused(tier, bytes, errno_text(errno));
  auto* begin = static_cast<std::byte*>(mapped);
  if (slack > 0) {
    const auto address = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(mapped));
    const std::int64_t head = align_up(address, kHugePage) - address;
    if (head > 0) munmap(begin, static_cast<std::size_t>(head));
    if (head < slack) munmap(begin + head + bytes, static_cast<std::size_t>(slack - head));
    begin += head;
    // Advice only: a kernel without transparent huge pages refuses it, and small pages work as well.
    if (madvise(begin, static_cast<std::size_t>(bytes), MADV_HUGEPAGE) != 0) {
      log_debug("huge pages refused for {} of memory: {}", format_bytes(bytes), errno_text(errno));
    }
  }
  return {begin, static_cast<std::size_t>(bytes)};
}

/// Makes [data, data + bytes) resident; returns 0 or the errno.
int touch(std::byte* data, std::int64_t bytes) {
#ifdef MADV_POPULATE_WRITE
  int result = 0;
  do {
    result = madvise(data, static_cast<std::size_t>(bytes), MADV_POPULATE_WRITE);
  } while (result != 0 && (errno == EINTR || errno == EAGAIN));
  if (result == 0) return 0;
  if (errno != EINVAL) return errno;  // EINVAL: a kernel before 5.14
#endif
  for (std::int64_t i = 0; i < bytes; i += kPageAlign)
    static_cast<volatile std::byte*>(data)[i] = std::byte{0};
  return 0;
}

/// Touches `memory` from `num_threads` threads, the caller's included; returns 0 or the first errno.
int touch_parallel(std::span<std::byte> memory, int num_threads) {
  const auto bytes = static_cast<std::int64_t>(memory.size());
  std::atomic<std::int64_t> next{0};
  std::atomic<int> error{0};
  const auto work = [&] {
    for (std::int64_t begin = next.fetch_add(kTouchChunk); begin < bytes && error == 0;
         begin = next.fetch_add(kTouchChunk)) {
      const int failed = touch(memory.data() + begin, std::min(kTouchChunk, bytes - begin));
      if (failed != 0) error = failed;
    }
  };
  const std::int64_t useful = std::min<std::int64_t>(num_threads, div_up(bytes, kTouchChunk));
  std::vector<std::jthread> helpers;
  try {
    for (std::int64_t i = 1; i < useful; ++i) helpers.emplace_back(work);
  } catch (const std::system_error&) {
    log_debug("only {} of {} threads could be started to touch memory", helpers.size() + 1, useful);
  }
  work();
  helpers.clear();  // joins
  return error;
}

}  // namespace

Arena::Arena(Reservation reservation)
    : reservation_(std::move(reservation)),
      memory_(map_anonymous(reservation_.tier(), align_up(reservation_.bytes(), kPageAlign))) {}

Arena::Arena(Reservation reservation, int touch_threads) : Arena(std::move(reservation)) {
  if (touch_threads <= 0 || memory_.empty()) return;
  const int error = touch_parallel(memory_, touch_threads);
  if (error != 0) throw_refused(tier(), static_cast<std::int64_t>(memory_.size()), errno_text(error));
}

Arena::Arena(Reservation reservation, kernels::Device& device) : reservation_(std::move(reservation)) {
  kernels::DeviceMemory allocated = device.allocate(align_up(reservation_.bytes(), kPageAlign));
  device_memory_ = std::move(allocated.owner);
  memory_ = allocated.bytes;
}

Arena::Arena(Reservation reservation, int touch_threads, kernels::Device& device,
             std::initializer_list<std::int64_t> pageable_bytes)
    : Arena(reservation.tier() == Tier::kGpu && device.has_own_memory()
                ? Arena(std::move(reservation), device)
                : Arena(std::move(reservation), touch_threads)) {
  if (device_memory_ == nullptr && device.has_own_memory()) pin(device, pageable_bytes);
}

void Arena::pin(kernels::Device& device, std::initializer_list<std::int64_t> pageable_bytes) {
  std::int64_t refused = 0;
  for (const std::int64_t pageable : pageable_bytes) {
    const auto first = std::min(static_cast<std::size_t>(align_up(pageable, kPageAlign)), memory_.size());
    const std::span<std::byte> wanted = memory_.subspan(first);
    if (wanted.empty() || std::ssize(wanted) == refused) continue;
    pinned_ = device.pin(wanted);
    if (pinned_ == nullptr) {
      refused = std::ssize(wanted);
      continue;
    }
    if (refused > 0)
      log_warn("{} memory: {} of {} are pinned, without the weights", tier_name(tier()),
               format_bytes(std::ssize(wanted)), format_bytes(std::ssize(memory_)));
    return;
  }
  if (refused > 0)
    log_warn("{} memory: nothing of {} is pinned", tier_name(tier()), format_bytes(std::ssize(memory_)));
}

Arena::Arena(Arena&& other) noexcept
    : reservation_(std::move(other.reservation_)),
      device_memory_(std::move(other.device_memory_)),
      memory_(std::exchange(other.memory_, {})),
      pinned_(std::move(other.pinned_)),
      taken_(std::exchange(other.taken_, 0)) {}

Arena& Arena::operator=(Arena&& other) noexcept {
  if (this != &other) {
    unmap();
    reservation_ = std::move(other.reservation_);
    device_memory_ = std::move(other.device_memory_);
    memory_ = std::exchange(other.memory_, {});
    pinned_ = std::move(other.pinned_);
    taken_ = std::exchange(other.taken_, 0);
  }
  return *this;
}

Arena::~Arena() { unmap(); }

void Arena::unmap() noexcept {
  pinned_.reset();  // while it is still mapped
  if (device_memory_ != nullptr) {
    device_memory_.reset();
    memory_ = {};
  }
  if (memory_.empty()) return;
  if (munmap(memory_.data(), memory_.size()) != 0) {
    log_warn("{} memory: cannot unmap {}: {}", tier_name(tier()),
             format_bytes(static_cast<std::int64_t>(memory_.size())), errno_text(errno));
  }
  memory_ = {};
}

std::span<std::byte> Arena::take(std::int64_t bytes, const std::string& what) {
  SLUICE_ASSERT(bytes >= 0);
  const std::int64_t left = static_cast<std::int64_t>(memory_.size()) - taken_;
  SLUICE_CHECK(bytes <= left && align_up(bytes, kPageAlign) <= left, Code::kInternal,
               fmt::format("{} arena: {} needs {}, but {} of {} are left: the memory plan is wrong",
                           tier_name(tier()), what, format_bytes(bytes), format_bytes(left),
                           format_bytes(static_cast<std::int64_t>(memory_.size()))),
               "please report this with the command line");
  const auto block = memory_.subspan(static_cast<std::size_t>(taken_), static_cast<std::size_t>(bytes));
  taken_ += align_up(bytes, kPageAlign);
  return block;
}

}  // namespace sluice::offload
