#include "core/checkpoint/pickle.h"

#include <algorithm>
#include <cstddef>
#include <unordered_map>
#include <utility>

#include "core/checkpoint/little_endian.h"
#include "core/checkpoint/pickle_opcodes.h"
#include "core/units.h"

namespace sluice {
namespace {

using namespace pickle_opcodes;  // NOLINT(google-build-using-namespace): a table of one-byte names

constexpr std::int64_t kMaxPickleBytes = 64_MiB;
constexpr std::size_t kMaxNodes = 2'000'000;
constexpr std::size_t kMaxPairItems = 4'000'000;  // made by OrderedDict([[key, value], ...])
constexpr std::size_t kMaxMarks = 10'000;         // the nesting of what is being built
constexpr std::size_t kMaxGlobalBytes = 1024;
constexpr std::uint64_t kMaxStringBytes = 1 << 20;
constexpr std::string_view kOrderedDict = "collections OrderedDict";

/// The stack machine. Every opcode reads at least one byte and makes at most one node. Items are moved from
/// the stack into a node, and only `pairs` copies them, so memory is bounded by the pickle and the limits.
class Machine {
 public:
  Machine(const ByteSource& source, std::int64_t base, std::string_view text,
          std::span<const std::string_view> known_globals)
      : source_(source), base_(base), text_(text), known_globals_(known_globals) {}

  PickleTree run() {
    while (step()) {
    }
    return std::move(tree_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw_corrupt(source_, base_ + static_cast<std::int64_t>(opcode_at_), "pickle: " + what);
  }

  // --- reading ---
  const std::byte* take(std::uint64_t bytes) {
    if (bytes > text_.size() - position_)
      fail(fmt::format("{} bytes are needed, the pickle ends before", bytes));
    const char* from = text_.data() + position_;
    position_ += bytes;
    return reinterpret_cast<const std::byte*>(from);
  }
  template <class Integer>
  Integer number() {
    return load_little_endian<Integer>(take(sizeof(Integer)));
  }
  std::string_view line() {
    const std::size_t end = text_.find('\n', position_);
    if (end == std::string_view::npos) fail("a name without end");
    const std::string_view name = text_.substr(position_, end - position_);
    position_ = end + 1;
    return name;
  }

  // --- nodes ---
  PickleNode& push(PickleKind kind, std::int64_t integer = 0) {
    if (tree_.nodes.size() == kMaxNodes) fail(fmt::format("more than {} objects", kMaxNodes));
    stack_.push_back(static_cast<PickleRef>(tree_.nodes.size()));
    PickleNode& node = tree_.nodes.emplace_back();
    node.kind = kind;
    node.integer = integer;
    return node;
  }
  void push_text(PickleKind kind, std::uint64_t bytes) {
    if (bytes > kMaxStringBytes)
      fail(fmt::format("a string of {} bytes, the limit is {}", bytes, kMaxStringBytes));
    const std::byte* from = take(bytes);
    push(kind).text.assign(reinterpret_cast<const char*>(from), bytes);
  }
  // Integers beyond 64 bits (states of random generators) are opaque.
  void push_long(std::uint64_t bytes) {
    if (bytes > kMaxStringBytes)
      fail(fmt::format("an integer of {} bytes, the limit is {}", bytes, kMaxStringBytes));
    const std::byte* from = take(bytes);
    if (bytes > sizeof(std::int64_t)) {
      push(PickleKind::kOpaque);
      return;
    }
    std::uint64_t value = 0;
    for (std::uint64_t i = 0; i < bytes; ++i) value |= std::to_integer<std::uint64_t>(from[i]) << (8 * i);
    if (bytes > 0 && bytes < sizeof(value) && (value >> (8 * bytes - 1)) != 0)
      value |= ~std::uint64_t{0} << (8 * bytes);
    push(PickleKind::kInt, static_cast<std::int64_t>(value));
  }
  void push_global(const std::string& name) {
    const bool known = name == kOrderedDict ||
                       std::find(known_globals_.begin(), known_globals_.end(), name) != known_globals_.end();
    PickleNode& node = push(known ? PickleKind::kGlobal : PickleKind::kOpaque);
    if (known) node.text = name;
  }

  // --- stack: everything above the last mark is reachable ---
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  PickleRef pop() {
    if (stack_.size() <= floor()) fail("the stack is empty");
    const PickleRef top = stack_.back();
    stack_.pop_back();
    return top;
  }
  PickleNode& top() {
    if (stack_.size() <= floor()) fail("the stack is empty");
    return tree_.nodes[stack_.back()];
  }
  std::vector<PickleRef> pop_many(std::size_t count) {
    if (stack_.size() - floor() < count) fail(fmt::format("{} objects are needed on the stack", count));
    const auto begin = stack_.end() - static_cast<std::ptrdiff_t>(count);
    std::vector<PickleRef> items(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    return items;
  }
  std::vector<PickleRef> pop_to_mark() {
    if (marks_.empty()) fail("no mark on the stack");
    std::vector<PickleRef> items = pop_many(stack_.size() - floor());
    marks_.pop_back();
    return items;
  }

  void remember(std::uint32_t key) {
    (void)top();
    memo_[key] = stack_.back();
    if (memo_.size() > kMaxNodes) fail(fmt::format("more than {} memo entries", kMaxNodes));
  }
  void recall(std::uint32_t key) {
    const auto found = memo_.find(key);
    if (found == memo_.end()) fail(fmt::format("memo {} is not set", key));
    stack_.push_back(found->second);
  }

  // --- opcodes with more to them ---
  void append(const std::vector<PickleRef>& items) {
    PickleNode& target = top();
    if (target.kind == PickleKind::kList) {
      target.items.insert(target.items.end(), items.begin(), items.end());
    } else if (target.kind != PickleKind::kOpaque && target.kind != PickleKind::kCall) {
      fail("items are appended to what is no list");
    }
  }
  void set_items(const std::vector<PickleRef>& items) {
    if (items.size() % 2 != 0) fail("a key without value");
    PickleNode& target = top();
    if (target.kind == PickleKind::kDict) {
      target.items.insert(target.items.end(), items.begin(), items.end());
    } else if (target.kind != PickleKind::kOpaque && target.kind != PickleKind::kCall) {
      fail("keys are set in what is no dictionary");
    }
  }
  void call() {
    const PickleRef arguments = pop();
    const PickleRef callee = pop();
    if (tree_[arguments].kind != PickleKind::kTuple && tree_[arguments].kind != PickleKind::kOpaque) {
      fail("the arguments of a call are no tuple");
    }
    if (tree_[callee].kind != PickleKind::kGlobal || tree_[arguments].kind == PickleKind::kOpaque) {
      push(PickleKind::kOpaque);
    } else if (tree_[callee].text == kOrderedDict) {
      PickleNode& dict = push(PickleKind::kDict);
      if (!tree_[arguments].items.empty()) dict.items = pairs(tree_[arguments].items.front());
    } else {
      push(PickleKind::kCall).items = {callee, arguments};
    }
  }
  // OrderedDict([[key, value], ...]), as Python 2 wrote it.
  std::vector<PickleRef> pairs(PickleRef list) {
    pair_items_ += 2 * tree_[list].items.size();
    if (pair_items_ > kMaxPairItems) fail(fmt::format("more than {} items of OrderedDict", kMaxPairItems));
    std::vector<PickleRef> items;
    for (const PickleRef pair : tree_[list].items) {
      const PickleNode& node = tree_[pair];
      if (tree_[list].kind != PickleKind::kList || node.items.size() != 2)
        fail("OrderedDict of what are no pairs");
      items.insert(items.end(), node.items.begin(), node.items.end());
    }
    return items;
  }
  void stack_global() {
    const PickleRef name = pop();
    const PickleRef module = pop();
    if (tree_[name].kind != PickleKind::kString || tree_[module].kind != PickleKind::kString) {
      fail("the name of a global is no string");
    }
    if (tree_[name].text.size() + tree_[module].text.size() > kMaxGlobalBytes)
      fail("the name of a global is too long");
    push_global(tree_[module].text + " " + tree_[name].text);
  }
  void build() {
    (void)pop();  // the state: attributes of an object that is not made
    const PickleKind target = top().kind;
    if (target != PickleKind::kDict && target != PickleKind::kCall && target != PickleKind::kOpaque) {
      fail("a state is set on what is no object");
    }
  }

  /// Executes one opcode; false after STOP.
  bool step() {
    opcode_at_ = position_;
    if (position_ == text_.size()) fail("ends without STOP");
    const auto opcode = static_cast<std::uint8_t>(text_[position_++]);
    switch (opcode) {
      case kProto:
        (void)take(1);
        break;
      case kFrame:
        (void)take(8);
        break;
      case kStop:
        tree_.root = pop();
        return false;
      case kMark:
        if (marks_.size() == kMaxMarks) fail(fmt::format("nested deeper than {} marks", kMaxMarks));
        marks_.push_back(stack_.size());
        break;
      case kPop:
        // Python pops a mark that lies on top.
        if (!marks_.empty() && marks_.back() == stack_.size()) {
          marks_.pop_back();
        } else {
          (void)pop();
        }
        break;
      case kPopMark:
        (void)pop_to_mark();
        break;
      case kNone:
        push(PickleKind::kNone);
        break;
      case kNewTrue:
        push(PickleKind::kBool, 1);
        break;
      case kNewFalse:
        push(PickleKind::kBool, 0);
        break;
      case kBinInt:
        push(PickleKind::kInt, number<std::int32_t>());
        break;
      case kBinInt1:
        push(PickleKind::kInt, number<std::uint8_t>());
        break;
      case kBinInt2:
        push(PickleKind::kInt, number<std::uint16_t>());
        break;
      case kLong1:
        push_long(number<std::uint8_t>());
        break;
      case kLong4:
        push_long(number<std::uint32_t>());
        break;
      case kBinFloat:
        (void)take(8);  // no tensor's place depends on one
        push(PickleKind::kFloat);
        break;
      case kShortBinUnicode:
      case kShortBinString:
        push_text(PickleKind::kString, number<std::uint8_t>());
        break;
      case kBinUnicode:
      case kBinString:
        push_text(PickleKind::kString, number<std::uint32_t>());
        break;
      case kBinUnicode8:
        push_text(PickleKind::kString, number<std::uint64_t>());
        break;
      case kShortBinBytes:
        push_text(PickleKind::kBytes, number<std::uint8_t>());
        break;
      case kBinBytes:
        push_text(PickleKind::kBytes, number<std::uint32_t>());
        break;
      case kBinBytes8:
        push_text(PickleKind::kBytes, number<std::uint64_t>());
        break;
      case kEmptyTuple:
        push(PickleKind::kTuple);
        break;
      case kTuple1:
      case kTuple2:
      case kTuple3: {
        std::vector<PickleRef> items = pop_many(opcode - kTuple1 + std::size_t{1});
        push(PickleKind::kTuple).items = std::move(items);
        break;
      }
      case kTuple:
      case kList: {
        std::vector<PickleRef> items = pop_to_mark();
        push(opcode == kTuple ? PickleKind::kTuple : PickleKind::kList).items = std::move(items);
        break;
      }
      case kEmptyList:
        push(PickleKind::kList);
        break;
      case kEmptyDict:
        push(PickleKind::kDict);
        break;
      case kDict: {
        std::vector<PickleRef> items = pop_to_mark();
        if (items.size() % 2 != 0) fail("a key without value");
        push(PickleKind::kDict).items = std::move(items);
        break;
      }
      case kAppend:
        append({pop()});
        break;
      case kAppends:
      case kAddItems:
        append(pop_to_mark());
        break;
      case kSetItem:
        set_items(pop_many(2));
        break;
      case kSetItems:
        set_items(pop_to_mark());
        break;
      case kEmptySet:
        push(PickleKind::kOpaque);
        break;
      case kFrozenSet:
        (void)pop_to_mark();
        push(PickleKind::kOpaque);
        break;
      case kGlobal: {
        const std::string module(line());
        push_global(module + " " + std::string(line()));
        break;
      }
      case kStackGlobal:
        stack_global();
        break;
      case kBinPersId: {
        const PickleRef id = pop();
        push(PickleKind::kPersistent).items = {id};
        break;
      }
      case kReduce:
        call();
        break;
      case kNewObj:
        (void)pop_many(2);
        push(PickleKind::kOpaque);
        break;
      case kNewObjEx:
        (void)pop_many(3);
        push(PickleKind::kOpaque);
        break;
      case kBuild:
        build();
        break;
      case kBinPut:
        remember(number<std::uint8_t>());
        break;
      case kLongBinPut:
        remember(number<std::uint32_t>());
        break;
      case kMemoize:
        remember(static_cast<std::uint32_t>(memo_.size()));
        break;
      case kBinGet:
        recall(number<std::uint8_t>());
        break;
      case kLongBinGet:
        recall(number<std::uint32_t>());
        break;
      default:
        fail(fmt::format("unknown opcode 0x{:02X}", opcode));
    }
    return true;
  }

  const ByteSource& source_;
  std::int64_t base_;
  std::string_view text_;
  std::span<const std::string_view> known_globals_;
  std::size_t position_ = 0;
  std::size_t opcode_at_ = 0;
  std::size_t pair_items_ = 0;
  PickleTree tree_;
  std::vector<PickleRef> stack_;
  std::vector<std::size_t> marks_;  ///< stack sizes when the marks were set
  std::unordered_map<std::uint32_t, PickleRef> memo_;
};

}  // namespace

PickleTree parse_pickle(ByteSource& source, std::int64_t offset, std::int64_t bytes,
                        std::span<const std::string_view> known_globals) {
  if (bytes > kMaxPickleBytes) {
    throw_corrupt(source, offset, fmt::format("pickle: {} bytes, the limit is {}", bytes, kMaxPickleBytes));
  }
  const std::string text = source.read_text(offset, bytes);
  return Machine(source, offset, text, known_globals).run();
}

}  // namespace sluice
