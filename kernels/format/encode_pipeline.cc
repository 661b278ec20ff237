#include "kernels/format/encode_pipeline.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <numeric>
#include <optional>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/mutex.h"
#include "core/store/checksum.h"
#include "core/units.h"
#include "kernels/format/format.h"
#include "kernels/format/piece_reader.h"
#include "kernels/format/prune.h"
#include "kernels/format/tile_table.h"

namespace sluice::kernels {
namespace {

enum class PieceUse : std::uint8_t {
  kEncode,
  kCount,  ///< its magnitudes go into the histogram that sets the threshold of the whole matrix
};

/// A run of one tensor's elements.
struct Piece {
  std::size_t tensor = 0;
  std::int64_t first = 0, count = 0;
  bool ends_tensor = false;
  PieceUse use = PieceUse::kEncode;
};

/// Elements of which a piece has a multiple, unless it ends its tensor. Dense values need no whole rows.
std::int64_t granule_of(const StoredTensor& tensor, const PruneRule& prune) {
  std::int64_t rows = prune.sparsity > 0 ? kCslTileRows : 0;
  if (tensor.format.encoding != Encoding::kDense) {
    rows = std::lcm(std::max<std::int64_t>(rows, 1),
                    codec_of(tensor.format.encoding).row_granule(tensor.spec.cols));
  }
  return rows == 0 ? 1 : rows * tensor.spec.cols;
}

bool needs_threshold(const PruneRule& rule) {
  return rule.sparsity > 0 && !rule.fake_seed && rule.scope == PruneScope::kMatrix;
}

/// Cuts the tensors from `first_tensor` on into pieces, in order.
class PieceList {
 public:
  PieceList(const CheckpointSource& source, const std::vector<StoredTensor>& tensors,
            std::int64_t first_tensor, std::int64_t piece_bytes)
      : source_(source),
        tensors_(tensors),
        tensor_(static_cast<std::size_t>(first_tensor)),
        piece_bytes_(piece_bytes) {}

  std::optional<Piece> next() {
    if (tensor_ == tensors_.size()) return std::nullopt;
    const TensorSpec& spec = tensors_[tensor_].spec;
    const std::int64_t granule = granule_of(tensors_[tensor_], source_.prune[tensor_]);
    const std::int64_t element_bytes = std::max<std::int64_t>(dtype_bytes(source_.tensors[tensor_].dtype), 4);
    const std::int64_t most = std::max(piece_bytes_ / element_bytes / granule * granule, granule);
    const std::int64_t count = std::min(most, spec.rows * spec.cols - first_);
    const bool counts = needs_threshold(source_.prune[tensor_]) && !is_counted_;
    const Piece piece{tensor_, first_, count, first_ + count == spec.rows * spec.cols,
                      counts ? PieceUse::kCount : PieceUse::kEncode};
    first_ = piece.ends_tensor ? 0 : first_ + count;
    if (piece.ends_tensor) {
      is_counted_ = counts;  // the same tensor once more, to be encoded
      tensor_ += counts ? 0 : 1;
    }
    return piece;
  }

 private:
  const CheckpointSource& source_;
  const std::vector<StoredTensor>& tensors_;
  std::size_t tensor_;
  std::int64_t first_ = 0;
  bool is_counted_ = false;
  std::int64_t piece_bytes_;
};

enum class SlotState : std::uint8_t { kFree, kReading, kRead, kEncoded };

/// Sums over a run of elements.
struct Loss {
  std::int64_t zeros = 0;
  double squared_error = 0, squared_norm = 0;

  void operator+=(const Loss& other) {
    zeros += other.zeros;
    squared_error += other.squared_error;
    squared_norm += other.squared_norm;
  }
  double relative_error() const { return squared_norm > 0 ? std::sqrt(squared_error / squared_norm) : 0.0; }
};

struct Slot {
  SlotState state =
      SlotState::kFree;  // guarded by the pipeline's mutex; the rest belongs to whose turn it is
  Piece piece;
  PieceBuffer source, values, stored;
  TileSizes tiles;               // of this piece
  std::vector<std::byte> table;  // of the tensor's tiles, if the piece ends it
  Loss loss;                     // of this piece
  TensorStats stats;             // of the tensor, if the piece ends it
  std::span<const std::byte> source_bytes;
  std::span<std::byte> stored_bytes;
  std::uint64_t checksum = 0;  // of the whole tensor, if the piece ends it
};

/// Piece number n passes through slot n % num_pieces: free, reading, read, encoded, free again.
class Pipeline {
 public:
  Pipeline(const CheckpointSource& source, StoreWriter& writer, const PipelineOptions& options)
      : source_(source),
        writer_(writer),
        options_(options),
        slots_(static_cast<std::size_t>(options.num_pieces)),
        pieces_(source, writer.tensors(), writer.next_tensor(), options.piece_bytes) {}

  void run() {
    std::vector<std::jthread> threads;
    guarded([&] {
      start_threads(threads);
      write_pieces();
    });
    threads.clear();  // joins
    const MutexLock lock(mutex_);
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  void start_threads(std::vector<std::jthread>& threads) {
    const int total = options_.num_readers + options_.num_encoders;
    threads.reserve(static_cast<std::size_t>(total));
    ThreadStarter starter("the conversion", total, options_.make_thread);
    for (int i = 0; i < options_.num_readers; ++i) {
      threads.push_back(starter.start([this] { guarded([this] { read_pieces(); }); }));
    }
    for (int i = 0; i < options_.num_encoders; ++i) {
      threads.push_back(starter.start([this] { guarded([this] { encode_pieces(); }); }));
    }
  }

  Slot& slot_of(std::int64_t number) { return slots_[static_cast<std::size_t>(number) % slots_.size()]; }

  /// Runs one thread's work; the first exception stops all of them.
  template <class Work>
  void guarded(const Work& work) {
    try {
      work();
    } catch (...) {
      const MutexLock lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
      stopped_ = true;
    }
    changed_.notify_all();
  }

  /// Waits until piece `number` has reached `state`. False if it never will: the list ended before, or the
  /// run stops.
  bool wait_for(std::int64_t number, SlotState state) {
    const MutexLock lock(mutex_);
    while (true) {
      if (stopped_ || (ended_ && number >= num_claimed_)) return false;
      if (number < num_claimed_ && slot_of(number).state == state) return true;
      changed_.wait(mutex_);
    }
  }
  /// Waits until the pieces before `number` are encoded. False if they never will be.
  bool wait_for_turn(std::int64_t number) {
    const MutexLock lock(mutex_);
    while (!stopped_ && num_encoded_ != number) changed_.wait(mutex_);
    return !stopped_;
  }
  void set_state(Slot& slot, SlotState state) {
    {
      const MutexLock lock(mutex_);
      slot.state = state;
    }
    changed_.notify_all();
  }

  /// The next piece for a reader, once its slot is free.
  Slot* claim() {
    const MutexLock lock(mutex_);
    while (!stopped_ && !ended_ && slot_of(num_claimed_).state != SlotState::kFree) changed_.wait(mutex_);
    if (stopped_ || ended_) return nullptr;
    const std::optional<Piece> piece = pieces_.next();
    if (!piece) {
      ended_ = true;
      changed_.notify_all();
      return nullptr;
    }
    Slot& slot = slot_of(num_claimed_++);
    slot.state = SlotState::kReading;
    slot.piece = *piece;
    return &slot;
  }

  void read_pieces() {
    PieceReader reader(source_, options_.open_reader());
    while (Slot* slot = claim()) {
      const Piece& piece = slot->piece;
      slot->source_bytes = reader.read(piece.tensor, piece.first, piece.count, slot->source);
      set_state(*slot, SlotState::kRead);
    }
  }

  /// The next piece that no other encoder has taken; false as wait_for.
  bool take_read_piece(std::int64_t& number) {
    {
      const MutexLock lock(mutex_);
      number = num_taken_++;
    }
    return wait_for(number, SlotState::kRead);
  }

  void encode_pieces() {
    std::int64_t number = 0;
    while (take_read_piece(number)) {
      Slot& slot = slot_of(number);
      // A threshold is known once the pieces before are counted, so those that need it are encoded in turn.
      const bool in_turn = needs_threshold(source_.prune[slot.piece.tensor]);
      if (in_turn && !wait_for_turn(number)) return;
      encode(slot);
      if (!in_turn && !wait_for_turn(number)) return;
      finish_encoding(slot);
      {
        const MutexLock lock(mutex_);
        slot.state = SlotState::kEncoded;
        num_encoded_ = number + 1;
      }
      changed_.notify_all();
    }
  }

  void encode(Slot& slot) {
    const TensorSpec& spec = writer_.tensors()[slot.piece.tensor].spec;
    const WeightFormat format = writer_.tensors()[slot.piece.tensor].format;
    const PruneRule& prune = source_.prune[slot.piece.tensor];
    const bool is_dense = format.encoding == Encoding::kDense;
    const SourceRun run{&spec, source_.tensors[slot.piece.tensor].dtype, slot.source_bytes, slot.piece.first};
    const std::span<std::byte> bytes =
        (is_dense ? slot.stored : slot.values).get(slot.piece.count * dtype_bytes(format.dtype));
    to_stored_values(run, format.dtype, bytes);
    const std::span<std::uint16_t> values{reinterpret_cast<std::uint16_t*>(bytes.data()),
                                          static_cast<std::size_t>(slot.piece.count)};
    slot.stored_bytes = {};
    slot.tiles.clear();
    if (slot.piece.use == PieceUse::kCount) {
      histogram_.add(values);
      if (slot.piece.ends_tensor) threshold_ = histogram_.threshold(prune.sparsity);
      return;
    }
    const std::int64_t first_row = slot.piece.first / spec.cols;
    prune_rows(prune, spec.name, first_row, spec.cols, threshold_, values);
    slot.loss = {count_zeros(values)};
    if (is_dense) {  // its values are its bytes
      slot.stored_bytes = bytes;
      return;
    }
    const RowRun rows{&spec, format.dtype, first_row, slot.piece.count / spec.cols, values};
    const FormatCodec& codec = codec_of(format.encoding);
    const std::span<std::byte> out = slot.stored.get(codec.max_run_bytes(rows.num_rows, spec.cols));
    slot.stored_bytes = out.first(static_cast<std::size_t>(codec.encode(rows, out, slot.tiles)));
    if (!is_lossless(format.encoding)) add_loss(rows, format, slot);
  }

  /// What the stored bytes of a run decode to, against what they were made from.
  static void add_loss(const RowRun& rows, WeightFormat format, Slot& slot) {
    const std::int64_t cols = rows.tensor->cols;
    std::vector<std::byte> stored(slot.stored_bytes.begin(), slot.stored_bytes.end());
    const std::vector<std::byte> table = encode_tile_table(slot.tiles, rows.tensor->name);
    stored.insert(stored.end(), table.begin(), table.end());
    std::vector<float> decoded(rows.values.size());
    decode_matrix({format, stored, rows.num_rows, cols}, decoded);
    std::vector<float> wanted(rows.values.size());
    decode_matrix({{Encoding::kDense, format.dtype}, std::as_bytes(rows.values), rows.num_rows, cols},
                  wanted);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      const double error = static_cast<double>(decoded[i]) - static_cast<double>(wanted[i]);
      slot.loss.squared_error += error * error;
      slot.loss.squared_norm += static_cast<double>(wanted[i]) * static_cast<double>(wanted[i]);
    }
  }

  /// Checksums run over a tensor's pieces in order, and so do the sizes of its tiles and its loss.
  void finish_encoding(Slot& slot) {
    slot.table.clear();
    if (slot.piece.use == PieceUse::kCount) return;
    tiles_.insert(tiles_.end(), slot.tiles.begin(), slot.tiles.end());
    loss_ += slot.loss;
    checksum_.update(slot.stored_bytes);
    if (!slot.piece.ends_tensor) return;
    slot.table = encode_tile_table(tiles_, writer_.tensors()[slot.piece.tensor].spec.name);
    checksum_.update(slot.table);
    slot.checksum = checksum_.value();
    slot.stats = {loss_.zeros, loss_.relative_error()};
    checksum_.reset();
    tiles_.clear();
    loss_ = {};
    histogram_.clear();
  }

  void write_pieces() {
    // Wakes the waits below when the user stops the run.
    const std::stop_callback on_stop(options_.stop, [this] {
      const MutexLock lock(mutex_);
      stopped_ = cancelled_ = true;
      changed_.notify_all();
    });
    for (std::int64_t number = 0; wait_for(number, SlotState::kEncoded); ++number) {
      Slot& slot = slot_of(number);
      std::int64_t bytes = 0;
      if (slot.piece.use == PieceUse::kEncode) {
        writer_.append(slot.stored_bytes);
        writer_.append(slot.table);
        if (slot.piece.ends_tensor) writer_.finish_tensor(slot.checksum, slot.stats);
        bytes = static_cast<std::int64_t>(slot.source_bytes.size());
      }
      set_state(slot, SlotState::kFree);
      if (bytes > 0 && options_.on_written) options_.on_written(bytes);
    }
    const MutexLock lock(mutex_);
    SLUICE_CHECK(!cancelled_, Code::kCancelled,
                 fmt::format("the conversion was stopped with {} of {} tensors written",
                             writer_.next_tensor(), writer_.tensors().size()),
                 "give the same command again to continue");
  }

  // fixed after construction
  const CheckpointSource& source_;
  StoreWriter& writer_;
  const PipelineOptions& options_;
  std::vector<Slot> slots_;

  // the encoder whose turn it is only
  StoreChecksum checksum_;
  TileSizes tiles_;
  Loss loss_;
  MagnitudeHistogram histogram_;
  MagnitudeHistogram::Threshold threshold_;

  Mutex mutex_;
  Condition changed_;
  PieceList pieces_ SLUICE_GUARDED_BY(mutex_);
  std::int64_t num_claimed_ SLUICE_GUARDED_BY(mutex_) = 0;
  std::int64_t num_taken_ SLUICE_GUARDED_BY(mutex_) = 0;    // by encoders
  std::int64_t num_encoded_ SLUICE_GUARDED_BY(mutex_) = 0;  // whose piece is next in turn
  bool ended_ SLUICE_GUARDED_BY(mutex_) = false;            // pieces_ gives no more
  bool stopped_ SLUICE_GUARDED_BY(mutex_) = false;          // every thread leaves at its next wait
  bool cancelled_ SLUICE_GUARDED_BY(mutex_) = false;        // stopped by the user
  std::exception_ptr failure_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace

void run_encode_pipeline(const CheckpointSource& source, StoreWriter& writer,
                         const PipelineOptions& options) {
  Pipeline(source, writer, options).run();
}

}  // namespace sluice::kernels
