#include "offload/weights/resident_loader.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "core/store/checksum.h"
#include "core/units.h"
#include "kernels/format/format.h"
#include "kernels/format/piece_reader.h"
#include "kernels/format/random_matrix.h"
#include "kernels/format/random_weights.h"
#include "offload/memory/arena.h"

namespace sluice::offload {
namespace {

using policy::Purpose;

/// Submits a request and waits for room; failures throw. `finish` waits for everything, and so does the
/// destructor, after a failure too: buffers are not given back while the system still writes into them.
class Transfers {
 public:
  Transfers(BlockIo& io, std::stop_token stop) : io_(io), stop_(std::move(stop)) {}
  ~Transfers() {
    try {
      while (io_.in_flight() > 0) io_.wait(std::chrono::steady_clock::now() + std::chrono::milliseconds(100));
    } catch (const Error&) {  // NOLINT(bugprone-empty-catch): the failure that came first is reported
    }
  }
  Transfers(const Transfers&) = delete;
  Transfers& operator=(const Transfers&) = delete;
  void submit(const IoRequest& request) {
    while (!io_.try_submit(request)) reap();
  }
  void finish() {
    while (io_.in_flight() > 0) reap();
  }

 private:
  void reap() {
    SLUICE_CHECK(!stop_.stop_requested(), Code::kCancelled, "stopped while loading weights",
                 "start the run again");
    const auto completion = io_.wait(std::chrono::steady_clock::now() + std::chrono::milliseconds(100));
    if (completion) completion->status.throw_if_failed();
  }
  BlockIo& io_;
  std::stop_token stop_;
};

/// Two pinned host buffers on the way to the device: one is filled while the other is copied.
class Bounce {
 public:
  static constexpr std::int64_t kBytes = 32_MiB;

  Bounce(kernels::Device& device, kernels::Stream& stream)
      : budget_(PerTier<std::int64_t>{{0, 2 * kBytes, 0}}),
        arena_(budget_.reserve(Tier::kCpu, 2 * kBytes, "loading"), 1, device),
        stream_(stream) {}
  ~Bounce() {
    try {
      stream_.synchronize();
    } catch (const Error&) {  // NOLINT(bugprone-empty-catch): the call that failed first has been reported
    }
  }
  Bounce(const Bounce&) = delete;
  Bounce& operator=(const Bounce&) = delete;

  /// The buffer of chunk `number`, once the copy from it two chunks ago is done.
  std::span<std::byte> buffer(std::int64_t number) {
    if (number > 2) stream_.await_step(number - 2);
    return bytes(number);
  }
  std::span<std::byte> bytes(std::int64_t number) const {
    return arena_.memory().subspan(static_cast<std::size_t>(number % 2 * kBytes),
                                   static_cast<std::size_t>(kBytes));
  }
  /// Copies the first `bytes` of the buffer of chunk `number`; chunks count from 1.
  void send(std::int64_t number, std::byte* to, std::int64_t bytes) {
    stream_.begin_step(number);
    stream_.copy(to, this->bytes(number).data(), bytes);
    stream_.end_step(number);
  }

 private:
  MemoryBudget budget_;
  Arena arena_;
  kernels::Stream& stream_;
};

class Loader {
 public:
  explicit Loader(const ResidentLoad& load) : load_(load), shape_(load.shape) {
    if (load.device.has_own_memory() && shape_.weight_bytes[Tier::kGpu] > 0)
      bounce_.emplace(load.device, load.stream);
  }

  void run() {
    if (load_.source.synthetic()) {
      generate();
    } else {
      read();
    }
    load_.stream.synchronize();
  }

 private:
  bool is_resident(std::size_t tensor) const { return shape_.tensors[tensor].tier != Tier::kDisk; }
  bool is_bounced(std::size_t tensor) const { return bounce_ && shape_.tensors[tensor].tier == Tier::kGpu; }
  std::span<std::byte> home(std::size_t tensor) const { return resident_home(shape_, load_.memory, tensor); }
  void check_stop() const {
    SLUICE_CHECK(!load_.stop.stop_requested(), Code::kCancelled, "stopped while loading weights",
                 "start the run again");
  }

  // ---- From a store.

  void read() {
    const Manifest& manifest = load_.source.manifest();
    std::vector<FileId> ids(manifest.files.size(), -1);
    for (std::size_t i = 0; i < manifest.tensors.size(); ++i) {
      const auto file = static_cast<std::size_t>(manifest.tensors[i].file);
      if ((is_resident(i) || is_examined(i)) && ids[file] < 0)
        ids[file] = load_.io.open(load_.source.store() / manifest.files[file], FileMode::kRead);
    }
    const auto request = [&](std::size_t i, std::int64_t first, std::span<std::byte> to) {
      return IoRequest{.op = IoOp::kRead,
                       .file = ids[static_cast<std::size_t>(manifest.tensors[i].file)],
                       .offset = manifest.tensors[i].offset + first,
                       .data = to.data(),
                       .bytes = static_cast<std::int64_t>(to.size()),
                       .tag = i};
    };
    Transfers transfers(load_.io, load_.stop);
    for (std::size_t i = 0; i < manifest.tensors.size(); ++i) {
      if (is_resident(i) && !is_bounced(i)) transfers.submit(request(i, 0, home(i)));
    }
    transfers.finish();
    load_.pool.parallel_for(
        static_cast<std::int64_t>(manifest.tensors.size()), 1, [&](std::int64_t begin, std::int64_t end) {
          for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
            if (!is_resident(i) || is_bounced(i) || load_.stop.stop_requested()) continue;
            examine(i, home(i));
          }
        });
    check_stop();
    read_examined(request, transfers);
    if (bounce_) read_bounced(request, transfers);
  }

  /// Whether a tensor is read as a whole, ahead of the run, to see that kernels can read it safely: one that
  /// is not dense and does not rest in CPU memory, where it is looked at in place.
  bool is_examined(std::size_t i) const {
    const bool is_encoded = load_.source.tensors()[i].format.encoding != Encoding::kDense;
    return is_encoded && (!is_resident(i) || is_bounced(i));
  }

  /// Throws Error{kCorrupt} unless `bytes`, which begin with the tensor's, are those that were written and
  /// hold a matrix in its format.
  void examine(std::size_t i, std::span<const std::byte> bytes) const {
    const Manifest& manifest = load_.source.manifest();
    const StoredTensor& tensor = manifest.tensors[i];
    const auto stored = bytes.first(static_cast<std::size_t>(tensor.bytes));
    verify_tensor(load_.source.store(), manifest, tensor, store_checksum(stored));
    if (tensor.format.encoding == Encoding::kDense) return;
    kernels::codec_of(tensor.format.encoding)
        .check({tensor.format, stored, tensor.spec.rows, tensor.spec.cols}, tensor.spec.name);
  }

  /// Some at a time, so that all threads look at them; those of a device with its own memory then go there.
  template <class MakeRequest>
  void read_examined(const MakeRequest& request, Transfers& transfers) {
    constexpr std::int64_t kTogether = 512_MiB;
    std::size_t next = 0;
    while (next < shape_.tensors.size()) {
      std::vector<std::size_t> batch;
      std::int64_t bytes = 0;
      for (; next < shape_.tensors.size(); ++next) {
        if (!is_examined(next)) continue;
        const std::int64_t more = shape_.tensors[next].padded_bytes;
        if (!batch.empty() && bytes + more > kTogether) break;
        batch.push_back(next);
        bytes += more;
      }
      std::span<std::byte> free = examined_.get(bytes);
      std::vector<std::span<std::byte>> tensors;
      for (const std::size_t i : batch) {
        tensors.push_back(free.first(static_cast<std::size_t>(shape_.tensors[i].padded_bytes)));
        free = free.subspan(tensors.back().size());
        transfers.submit(request(i, 0, tensors.back()));
      }
      transfers.finish();
      load_.pool.parallel_for(std::ssize(batch), 1, [&](std::int64_t begin, std::int64_t end) {
        for (auto t = static_cast<std::size_t>(begin); t < static_cast<std::size_t>(end); ++t) {
          examine(batch[t], tensors[t]);
        }
      });
      check_stop();
      for (std::size_t t = 0; t < batch.size(); ++t) {
        if (is_bounced(batch[t])) send(tensors[t], home(batch[t]));
      }
    }
    if (num_sent_ > 0) load_.stream.synchronize();
    examined_ = {};
  }

  void send(std::span<const std::byte> bytes, std::span<std::byte> to) {
    for (std::size_t first = 0; first < bytes.size(); first += static_cast<std::size_t>(Bounce::kBytes)) {
      const auto part =
          bytes.subspan(first, std::min(bytes.size() - first, static_cast<std::size_t>(Bounce::kBytes)));
      std::ranges::copy(part, bounce_->buffer(++num_sent_).begin());
      bounce_->send(num_sent_, to.data() + first, std::ssize(part));
    }
  }

  /// The next chunk is read while the one at hand is verified and copied.
  template <class MakeRequest>
  void read_bounced(const MakeRequest& request, Transfers& transfers) {
    struct Chunk {
      std::size_t tensor = 0;
      std::int64_t first = 0, bytes = 0;
    };
    std::vector<Chunk> chunks;
    for (std::size_t i = 0; i < shape_.tensors.size(); ++i) {
      if (!is_bounced(i) || is_examined(i)) continue;
      const std::int64_t padded = shape_.tensors[i].padded_bytes;
      for (std::int64_t first = 0; first < padded; first += Bounce::kBytes)
        chunks.push_back({i, first, std::min(Bounce::kBytes, padded - first)});
    }
    const Manifest& manifest = load_.source.manifest();
    const auto start = [&](std::size_t c) {
      const auto buffer = bounce_->buffer(num_sent_ + static_cast<std::int64_t>(c) + 1);
      transfers.submit(request(chunks[c].tensor, chunks[c].first,
                               buffer.first(static_cast<std::size_t>(chunks[c].bytes))));
    };
    StoreChecksum checksum;
    if (!chunks.empty()) start(0);
    for (std::size_t c = 0; c < chunks.size(); ++c) {
      transfers.finish();
      if (c + 1 < chunks.size()) start(c + 1);
      const Chunk& chunk = chunks[c];
      const StoredTensor& stored = manifest.tensors[chunk.tensor];
      const std::int64_t number = num_sent_ + static_cast<std::int64_t>(c) + 1;
      bounce_->send(number, home(chunk.tensor).data() + chunk.first, chunk.bytes);
      const std::int64_t data = std::min(chunk.bytes, stored.bytes - chunk.first);
      checksum.update(
          bounce_->bytes(number).first(static_cast<std::size_t>(std::max<std::int64_t>(0, data))));
      if (chunk.first + chunk.bytes < shape_.tensors[chunk.tensor].padded_bytes) continue;
      verify_tensor(load_.source.store(), manifest, stored, checksum.value());
      checksum.reset();
    }
  }

  // ---- Random values.

  /// Any range of a plain dense tensor can be made by itself; the others are made whole.
  static bool has_ranges(const SourceTensor& tensor) {
    return tensor.format.encoding == Encoding::kDense && tensor.sparsity == 0;
  }

  void fill_tensor(std::size_t i, std::span<std::byte> out) const {
    const SourceTensor& tensor = load_.source.tensors()[i];
    if (has_ranges(tensor)) return fill(i, 0, out);
    const kernels::RandomMatrix matrix{tensor.spec, load_.source.spec(), tensor.format, tensor.sparsity,
                                       load_.source.seed()};
    kernels::random_matrix(matrix, tensor.tiles ? *tensor.tiles : kernels::TileSizes{}, load_.pool, out);
  }

  /// Ahead of the fill() of its ranges.
  void make_whole(std::size_t i) {
    const SourceTensor& tensor = load_.source.tensors()[i];
    if (has_ranges(tensor)) return;
    whole_.resize(static_cast<std::size_t>(tensor.bytes));
    fill_tensor(i, whole_);
  }

  void fill(std::size_t i, std::int64_t first, std::span<std::byte> out) const {
    constexpr std::int64_t kGrain = 4 << 20;
    const SourceTensor& tensor = load_.source.tensors()[i];
    if (!has_ranges(tensor)) {
      std::memcpy(out.data(), whole_.data() + first, out.size());
      return;
    }
    load_.pool.parallel_for(
        static_cast<std::int64_t>(out.size()), kGrain, [&](std::int64_t begin, std::int64_t end) {
          kernels::random_tensor_range(
              tensor.spec, load_.source.spec(), tensor.format, load_.source.seed(), first + begin,
              out.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
        });
  }

  void generate() {
    std::int64_t chunk = 0;
    for (std::size_t i = 0; i < shape_.tensors.size(); ++i) {
      check_stop();
      if (!is_resident(i)) continue;
      const std::int64_t bytes = load_.source.tensors()[i].bytes;
      if (!is_bounced(i)) {
        fill_tensor(i, home(i).first(static_cast<std::size_t>(bytes)));
        continue;
      }
      make_whole(i);
      for (std::int64_t first = 0; first < bytes; first += Bounce::kBytes) {
        const std::int64_t part = std::min(Bounce::kBytes, bytes - first);
        fill(i, first, bounce_->buffer(++chunk).first(static_cast<std::size_t>(part)));
        bounce_->send(chunk, home(i).data() + first, part);
      }
    }
    write_disk_part();
  }

  /// The disk part goes through the weight staging slots, which nothing uses yet.
  void write_disk_part() {
    const ScratchFile* file = load_.memory.file(Purpose::kWeights);
    if (file == nullptr) return;
    const FileId id = load_.io.open(file->path(), FileMode::kReadWriteCreate);
    const std::span<std::byte> stage = load_.memory.block(Purpose::kWeightStage, Tier::kCpu);
    for (std::size_t i = 0; i < shape_.tensors.size(); ++i) {
      const policy::TensorHome& tensor = shape_.tensors[i];
      if (tensor.tier != Tier::kDisk) continue;
      check_stop();
      make_whole(i);
      for (std::int64_t first = 0; first < tensor.padded_bytes;
           first += static_cast<std::int64_t>(stage.size())) {
        const std::int64_t padded =
            std::min<std::int64_t>(tensor.padded_bytes - first, static_cast<std::int64_t>(stage.size()));
        const std::int64_t bytes = std::min(padded, load_.source.tensors()[i].bytes - first);
        std::memset(stage.data() + bytes, 0, static_cast<std::size_t>(padded - bytes));
        fill(i, first, stage.first(static_cast<std::size_t>(bytes)));
        Transfers transfers(load_.io, load_.stop);
        transfers.submit({.op = IoOp::kWrite,
                          .file = id,
                          .offset = tensor.home_offset + first,
                          .data = stage.data(),
                          .bytes = padded});
        transfers.finish();
      }
    }
  }

  const ResidentLoad& load_;
  const policy::RunShape& shape_;
  std::optional<Bounce> bounce_;
  std::int64_t num_sent_ = 0;  // chunks that went through the bounce buffers one by one
  kernels::PieceBuffer examined_;
  std::vector<std::byte> whole_;  // of a synthetic matrix that goes on in parts
};

}  // namespace

std::span<std::byte> resident_home(const policy::RunShape& shape, const TierMemory& memory,
                                   std::size_t tensor) {
  const policy::TensorHome& home = shape.tensors[tensor];
  return memory.block(Purpose::kWeights, home.tier)
      .subspan(static_cast<std::size_t>(home.home_offset), static_cast<std::size_t>(home.padded_bytes));
}

void load_resident_weights(const ResidentLoad& load) { Loader(load).run(); }

}  // namespace sluice::offload
