#include "tests/fakes/fake_async_device.h"

#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <utility>

#include "core/error.h"
#include "core/units.h"

namespace sluice::kernels::fakes {

/// One mutex for the device: its streams are few, and what they do is small.
struct FakeAsyncDevice::Shared {
  explicit Shared(const FakeDeviceScript& device_script) : script(device_script) {}

  const FakeDeviceScript script;
  std::mutex mutex;
  std::condition_variable changed;
  // Guarded by the mutex.
  bool broken = false;
  std::int64_t allocated = 0;
  std::vector<std::string> log;

  void add(std::string event) {
    const std::lock_guard lock(mutex);
    log.push_back(std::move(event));
  }
  [[noreturn]] static void throw_broken() {
    throw Error(Code::kDevice, "fake: an illegal memory access was encountered", "see the driver's log");
  }
  void check() const {
    if (broken) throw_broken();
  }
};

namespace {

double clock_sec() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class OwnMemory final : public DeviceResource {
 public:
  OwnMemory(std::shared_ptr<FakeAsyncDevice::Shared> device, void* memory, std::int64_t bytes)
      : device_(std::move(device)), memory_(memory), bytes_(bytes) {}
  ~OwnMemory() override {
    std::free(memory_);
    const std::lock_guard lock(device_->mutex);
    device_->allocated -= bytes_;
    device_->log.emplace_back("free");
  }
  OwnMemory(const OwnMemory&) = delete;
  OwnMemory& operator=(const OwnMemory&) = delete;

 private:
  const std::shared_ptr<FakeAsyncDevice::Shared> device_;
  void* const memory_;
  const std::int64_t bytes_;
};

class Pinned final : public DeviceResource {
 public:
  Pinned(std::shared_ptr<FakeAsyncDevice::Shared> device, std::span<std::byte> host)
      : device_(std::move(device)), host_(host) {}
  ~Pinned() override {
    // It must still be mapped: reading it crashes if not.
    const auto* volatile first = host_.data();
    const bool mapped = *first == *first;
    device_->add(mapped ? "unpin" : "");
  }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;

 private:
  const std::shared_ptr<FakeAsyncDevice::Shared> device_;
  const std::span<std::byte> host_;
};

}  // namespace

FakeAsyncDevice::FakeAsyncDevice(const FakeDeviceScript& script)
    : shared_(std::make_shared<Shared>(script)) {}
FakeAsyncDevice::~FakeAsyncDevice() = default;

std::int64_t FakeAsyncDevice::free_bytes() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->script.free_bytes - shared_->allocated;
}

DeviceMemory FakeAsyncDevice::allocate(std::int64_t bytes) {
  const std::int64_t free = free_bytes();
  SLUICE_CHECK(bytes <= free && !shared_->script.allocation_fails, Code::kOutOfMemory,
               fmt::format("gpu memory: need {}, but {} are free on fake device", format_bytes(bytes),
                           format_bytes(free)),
               "lower --gpu-memory, or end the other programs on this GPU");
  shared_->add(fmt::format("allocate {}", bytes));
  if (bytes == 0) return {};
  void* memory = std::aligned_alloc(static_cast<std::size_t>(kPageAlign), static_cast<std::size_t>(bytes));
  SLUICE_ASSERT(memory != nullptr);
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->allocated += bytes;
  }
  return {std::make_unique<OwnMemory>(shared_, memory, bytes),
          {static_cast<std::byte*>(memory), static_cast<std::size_t>(bytes)}};
}

std::unique_ptr<DeviceResource> FakeAsyncDevice::pin(std::span<std::byte> host) {
  if (host.empty()) return nullptr;
  const bool pins = std::ssize(host) <= shared_->script.most_pinned_bytes;
  shared_->add(fmt::format("{} {}", pins ? "pin" : "refuse to pin", host.size()));
  if (!pins) return nullptr;
  return std::make_unique<Pinned>(shared_, host);
}

std::unique_ptr<FakeAsyncStream> FakeAsyncDevice::make_fake_stream() {
  return std::make_unique<FakeAsyncStream>(shared_, shared_->script.seed * 1000 + ++num_streams_);
}

std::unique_ptr<Stream> FakeAsyncDevice::make_stream(StreamPriority /*priority*/,
                                                     std::span<std::byte> /*workspace*/) {
  return make_fake_stream();
}

std::vector<std::string> FakeAsyncDevice::log() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->log;
}

// ---- Streams.

struct FakeAsyncStream::Queue {
  struct Item {
    enum class Kind : std::uint8_t { kWork, kBegin, kEnd, kWait } kind = Kind::kWork;
    std::function<void()> work = nullptr;
    std::int64_t seq = 0;
    bool fails = false;
    Fault fault = Fault::kOnce;
    std::shared_ptr<Queue> other = nullptr;  // whose step `seq` is waited for
  };

  // Guarded by the device's mutex.
  std::deque<Item> items;
  bool busy = false, stop = false;
  std::int64_t enqueued = 0, done = 0;       // steps
  std::map<std::int64_t, StepSpan> spans;    // of steps that nobody has awaited
  std::set<std::int64_t> failed;             // those whose await_step throws
  std::int64_t first_step = 0, started = 0;  // steps before the first belong to an earlier user
  double start_sec = 0;

  std::mt19937_64 random;  // worker only
  std::thread worker;

  void run(FakeAsyncDevice::Shared& device);
};

void FakeAsyncStream::Queue::run(FakeAsyncDevice::Shared& device) {
  std::unique_lock lock(device.mutex);
  while (true) {
    device.changed.wait(lock, [&] { return stop || !items.empty(); });
    if (stop) return;
    Item item = std::move(items.front());
    items.pop_front();
    busy = true;
    switch (item.kind) {
      case Item::Kind::kWait:
        device.changed.wait(lock, [&] { return stop || device.broken || item.other->done >= item.seq; });
        break;
      case Item::Kind::kBegin:
        start_sec = clock_sec();
        if (device.script.jitter.count() > 0 && random() % 4 == 0) {
          const auto delay = std::chrono::microseconds(
              random() % static_cast<std::uint64_t>(device.script.jitter.count() + 1));
          lock.unlock();
          std::this_thread::sleep_for(delay);
          lock.lock();
        }
        break;
      case Item::Kind::kWork:
        if (device.broken) break;
        lock.unlock();
        item.work();
        item.work = nullptr;
        lock.lock();
        break;
      case Item::Kind::kEnd:
        if (item.fails && item.fault == Fault::kSticky) device.broken = true;
        if (item.fails) failed.insert(item.seq);
        spans[item.seq] = {start_sec, clock_sec()};
        done = item.seq;
        break;
    }
    busy = false;
    device.changed.notify_all();
  }
}

FakeAsyncStream::FakeAsyncStream(std::shared_ptr<FakeAsyncDevice::Shared> device, std::uint64_t seed)
    : Stream(DeviceKind::kCuda), device_(std::move(device)), queue_(std::make_shared<Queue>()) {
  queue_->random.seed(seed);
  queue_->worker = std::thread([this] { queue_->run(*device_); });
}

FakeAsyncStream::~FakeAsyncStream() {
  {
    const std::lock_guard lock(device_->mutex);
    queue_->stop = true;
    device_->changed.notify_all();
  }
  queue_->worker.join();
  const std::lock_guard lock(device_->mutex);
  queue_->items.clear();  // those that wait for each other's streams would keep each other
}

void FakeAsyncStream::check_enqueue() const {
  if (current_step_ == failing_enqueue_)
    throw Error(Code::kDevice, "fake: the copy was refused", "see the driver's log");
}

void FakeAsyncStream::enqueue(std::function<void()> work) {
  const std::lock_guard lock(device_->mutex);
  device_->check();
  queue_->items.push_back({.work = std::move(work)});
  device_->changed.notify_all();
}

void FakeAsyncStream::copy(std::byte* to, const std::byte* from, std::int64_t bytes) {
  check_enqueue();
  enqueue([=] { std::memmove(to, from, static_cast<std::size_t>(bytes)); });
}

void FakeAsyncStream::copy_rows(std::byte* to, std::int64_t to_stride, const std::byte* from,
                                std::int64_t from_stride, std::int64_t row_bytes, std::int64_t rows) {
  check_enqueue();
  enqueue([=] {
    for (std::int64_t row = 0; row < rows; ++row)
      std::memcpy(to + row * to_stride, from + row * from_stride, static_cast<std::size_t>(row_bytes));
  });
}

void FakeAsyncStream::fill(std::span<std::byte> memory, std::byte value) {
  check_enqueue();
  enqueue([=] { std::memset(memory.data(), static_cast<int>(value), memory.size()); });
}

void FakeAsyncStream::bind_thread() {
  if (bind_fails_) throw Error(Code::kDevice, "fake: the device is lost", "see the driver's log");
}

void FakeAsyncStream::begin_step(std::int64_t seq) {
  const std::lock_guard lock(device_->mutex);
  device_->check();
  Queue& queue = *queue_;
  if (seq <= queue.started) {  // another user counts from the start
    SLUICE_ASSERT(queue.items.empty() && !queue.busy);
    queue.done = queue.enqueued = seq - 1;
    queue.spans.clear();
    queue.failed.clear();
  }
  SLUICE_ASSERT(seq - queue.done <= kMaxStepsAhead || queue.done == queue.enqueued);
  queue.started = current_step_ = seq;
  queue.items.push_back({.kind = Queue::Item::Kind::kBegin, .seq = seq});
  device_->changed.notify_all();
}

void FakeAsyncStream::end_step(std::int64_t seq) {
  const std::lock_guard lock(device_->mutex);
  device_->check();
  SLUICE_ASSERT(seq == current_step_);
  const auto scripted = failing_steps_.find(seq);
  const bool fails = scripted != failing_steps_.end();
  queue_->items.push_back({.kind = Queue::Item::Kind::kEnd,
                           .seq = seq,
                           .fails = fails,
                           .fault = fails ? scripted->second : Fault::kOnce});
  queue_->enqueued = seq;
  device_->changed.notify_all();
}

void FakeAsyncStream::wait_for_step(const Stream& other, std::int64_t seq) {
  const std::lock_guard lock(device_->mutex);
  device_->check();
  const auto& from = static_cast<const FakeAsyncStream&>(other);
  SLUICE_ASSERT(from.device_ == device_ && from.queue_->enqueued >= seq);
  queue_->items.push_back({.kind = Queue::Item::Kind::kWait, .seq = seq, .other = from.queue_});
  device_->changed.notify_all();
}

bool FakeAsyncStream::is_step_done(std::int64_t seq) {
  const std::lock_guard lock(device_->mutex);
  device_->check();
  SLUICE_ASSERT(queue_->enqueued >= seq);
  return queue_->done >= seq;
}

StepSpan FakeAsyncStream::await_step(std::int64_t seq) {
  std::unique_lock lock(device_->mutex);
  SLUICE_ASSERT(device_->broken || queue_->enqueued >= seq);
  device_->changed.wait(lock, [&] { return device_->broken || queue_->done >= seq; });
  device_->check();
  if (queue_->failed.contains(seq))
    throw Error(Code::kDevice, "fake: the step failed on the device", "see the driver's log");
  StepSpan span = queue_->spans[seq];
  queue_->spans.erase(queue_->spans.begin(), queue_->spans.upper_bound(seq));
  span.start_sec += device_->script.clock_skew_sec;
  span.end_sec += device_->script.clock_skew_sec;
  return span;
}

void FakeAsyncStream::synchronize() {
  std::unique_lock lock(device_->mutex);
  device_->changed.wait(lock, [&] { return device_->broken || (queue_->items.empty() && !queue_->busy); });
  device_->check();
}

}  // namespace sluice::kernels::fakes
