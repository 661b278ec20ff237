#include "core/checkpoint/torch_zip.h"

#include <array>
#include <unordered_map>
#include <utility>

#include "core/checkpoint/pickle.h"
#include "core/checkpoint/printable.h"

namespace sluice {
namespace {

constexpr std::string_view kRebuildTensor = "torch._utils _rebuild_tensor";
constexpr std::string_view kRebuildTensorV2 = "torch._utils _rebuild_tensor_v2";
constexpr std::string_view kRebuildTensorV3 = "torch._utils _rebuild_tensor_v3";
constexpr std::string_view kRebuildParameter = "torch._utils _rebuild_parameter";
constexpr std::string_view kRebuildParameterWithState = "torch._utils _rebuild_parameter_with_state";
constexpr std::string_view kRebuildFromType = "torch._tensor _rebuild_from_type_v2";
constexpr std::string_view kTorchSize = "torch Size";
constexpr std::string_view kUntypedStorage = "torch.storage UntypedStorage";

// The white list: every name in a pickle that means anything to this reader.
constexpr std::array kKnownGlobals = {
    kRebuildTensor, kRebuildTensorV2, kRebuildTensorV3, kRebuildParameter, kRebuildParameterWithState,
    kRebuildFromType, kTorchSize, kUntypedStorage,
    // Element types, by storage class and by dtype.
    std::string_view("torch HalfStorage"), std::string_view("torch FloatStorage"),
    std::string_view("torch BFloat16Storage"), std::string_view("torch DoubleStorage"),
    std::string_view("torch LongStorage"), std::string_view("torch IntStorage"),
    std::string_view("torch ShortStorage"), std::string_view("torch CharStorage"),
    std::string_view("torch ByteStorage"), std::string_view("torch BoolStorage"),
    std::string_view("torch float16"), std::string_view("torch float32"), std::string_view("torch bfloat16"),
    std::string_view("torch float64"), std::string_view("torch int64"), std::string_view("torch int32"),
    std::string_view("torch int16"), std::string_view("torch int8"), std::string_view("torch uint8"),
    std::string_view("torch bool")};

std::optional<DType> dtype_of(std::string_view global) {
  struct Row {
    std::string_view storage, dtype;
    DType value;
  };
  constexpr std::array<Row, 10> kRows = {{{"torch HalfStorage", "torch float16", DType::kF16},
                                          {"torch FloatStorage", "torch float32", DType::kF32},
                                          {"torch BFloat16Storage", "torch bfloat16", DType::kBF16},
                                          {"torch DoubleStorage", "torch float64", DType::kF64},
                                          {"torch LongStorage", "torch int64", DType::kI64},
                                          {"torch IntStorage", "torch int32", DType::kI32},
                                          {"torch ShortStorage", "torch int16", DType::kI16},
                                          {"torch CharStorage", "torch int8", DType::kI8},
                                          {"torch ByteStorage", "torch uint8", DType::kU8},
                                          {"torch BoolStorage", "torch bool", DType::kBool}}};
  for (const Row& row : kRows) {
    if (row.storage == global || row.dtype == global) return row.value;
  }
  return std::nullopt;
}

/// Reads tensors out of the tree of one data.pkl.
class StateDict {
 public:
  StateDict(const ByteSource& source, std::int64_t offset, const PickleTree& tree,
            const FindStorage& find_storage)
      : source_(source), offset_(offset), tree_(tree), find_storage_(find_storage) {}

  std::vector<TensorRecord> tensors() {
    std::vector<TensorRecord> records = tensors_of(tree_[tree_.root]);
    if (!records.empty()) return records;
    // Trainers wrap the state dict: Lightning, metaseq and fairseq, DeepSpeed and GLM.
    for (const std::string_view wrapper : {"state_dict", "model", "module"}) {
      const PickleNode* inner = value_of(tree_[tree_.root], wrapper);
      if (inner != nullptr) records = tensors_of(*inner);
      if (!records.empty()) return records;
    }
    throw Error(Code::kUnsupported,
                fmt::format("{}: its pickle holds no dictionary of tensors", source_.name()),
                "give a file that was made by torch.save(model.state_dict())");
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw_corrupt(source_, offset_, fmt::format("tensor '{}': {}", printable(name_), what));
  }

  const PickleNode* value_of(const PickleNode& dict, std::string_view key) const {
    if (dict.kind != PickleKind::kDict) return nullptr;
    for (std::size_t i = 0; i < dict.items.size(); i += 2) {
      const PickleNode& node = tree_[dict.items[i]];
      if (node.kind == PickleKind::kString && node.text == key) return &tree_[dict.items[i + 1]];
    }
    return nullptr;
  }

  // Entries that are no tensors (step counters, random states, configurations) are passed over.
  std::vector<TensorRecord> tensors_of(const PickleNode& dict) {
    std::vector<TensorRecord> records;
    if (dict.kind != PickleKind::kDict) return records;
    for (std::size_t i = 0; i < dict.items.size(); i += 2) {
      const PickleNode& key = tree_[dict.items[i]];
      if (key.kind != PickleKind::kString) continue;
      name_ = key.text;
      std::optional<TensorRecord> record = tensor_of(tree_[dict.items[i + 1]]);
      if (record) records.push_back(std::move(*record));
    }
    return records;
  }

  std::optional<TensorRecord> tensor_of(const PickleNode& value) {
    if (value.kind != PickleKind::kCall) return std::nullopt;
    const std::string_view callee = tree_[value.items[0]].text;
    const std::vector<PickleRef>& arguments = tree_[value.items[1]].items;
    if (callee == kRebuildParameter || callee == kRebuildParameterWithState) {
      // (tensor, requires_grad, hooks). Not recursive: torch never nests parameters.
      if (arguments.empty()) fail("_rebuild_parameter without arguments");
      const PickleNode& tensor = tree_[arguments[0]];
      if (tensor.kind != PickleKind::kCall) return std::nullopt;
      return rebuilt(tree_[tensor.items[0]].text, tree_[tensor.items[1]].items);
    }
    if (callee == kRebuildFromType) {  // (function, type, its arguments, state)
      if (arguments.size() < 3) fail("_rebuild_from_type_v2 needs 3 arguments");
      return rebuilt(tree_[arguments[0]].text, tree_[arguments[2]].items);
    }
    return rebuilt(callee, arguments);
  }

  // _rebuild_tensor(storage, offset, size, stride), _v2(..., requires_grad, hooks[, metadata]),
  // _v3(..., requires_grad, hooks, dtype, metadata).
  std::optional<TensorRecord> rebuilt(std::string_view callee, const std::vector<PickleRef>& arguments) {
    const bool has_dtype = callee == kRebuildTensorV3;
    if (callee != kRebuildTensor && callee != kRebuildTensorV2 && !has_dtype) return std::nullopt;
    if (arguments.size() < (has_dtype ? 7U : 4U))
      fail(fmt::format("{} arguments are too few", arguments.size()));

    const std::vector<PickleRef>& storage = storage_id(tree_[arguments[0]]);
    const std::string& class_name = tree_[storage[1]].text;
    const std::string& type_name = has_dtype ? tree_[arguments[6]].text : class_name;
    const std::optional<DType> dtype = dtype_of(type_name);
    SLUICE_CHECK(dtype.has_value(), Code::kUnsupported,
                 fmt::format("{}: tensor '{}' has an element type that Sluice does not know", source_.name(),
                             printable(name_)),
                 "save the checkpoint as float16, bfloat16 or float32");
    const std::int64_t width = dtype_bytes(*dtype);
    std::int64_t storage_bytes = integer(storage[4], "the size of its storage");
    if (class_name != kUntypedStorage && __builtin_mul_overflow(storage_bytes, width, &storage_bytes)) {
      fail("the size of its storage overflows");
    }
    const std::string& key = tree_[storage[2]].text;
    const ZipData data = find_storage_(key);
    if (storage_bytes > data.bytes) {
      fail(fmt::format("storage '{}' must have {} bytes, has {}", printable(key), storage_bytes, data.bytes));
    }
    return placed(*dtype, integers(arguments[2], "its shape"), integers(arguments[3], "its strides"),
                  integer(arguments[1], "its offset"), data.offset, storage_bytes / width);
  }

  // ('storage', <StorageClass>, key, location, number of elements)
  const std::vector<PickleRef>& storage_id(const PickleNode& node) const {
    if (node.kind == PickleKind::kPersistent) {
      const PickleNode& id = tree_[node.items[0]];
      if (id.kind == PickleKind::kTuple && id.items.size() >= 5 && tree_[id.items[0]].text == "storage" &&
          tree_[id.items[2]].kind == PickleKind::kString) {
        return id.items;
      }
    }
    fail("its storage is not of the known form");
  }

  std::int64_t integer(PickleRef ref, const char* what) const {
    const PickleNode& node = tree_[ref];
    if (node.kind != PickleKind::kInt || node.integer < 0) fail(fmt::format("{} is no size", what));
    return node.integer;
  }
  std::vector<std::int64_t> integers(PickleRef ref, const char* what) const {
    const PickleNode* node = &tree_[ref];
    if (node->kind == PickleKind::kCall && tree_[node->items[0]].text == kTorchSize &&
        tree_[node->items[1]].items.size() == 1) {
      node = &tree_[tree_[node->items[1]].items[0]];
    }
    if (node->kind != PickleKind::kTuple && node->kind != PickleKind::kList)
      fail(fmt::format("{} is no tuple", what));
    if (node->items.size() > kMaxRank) fail(fmt::format("more than {} dimensions", kMaxRank));
    std::vector<std::int64_t> values;
    for (const PickleRef item : node->items) values.push_back(integer(item, what));
    return values;
  }

  // Checks that every element lies in the storage; strides are kept only where the view is not row-major.
  TensorRecord placed(DType dtype, std::vector<std::int64_t> shape, std::vector<std::int64_t> strides,
                      std::int64_t first, std::int64_t storage_offset, std::int64_t storage_elements) const {
    if (shape.size() != strides.size()) fail("shape and strides differ in length");
    const std::optional<std::int64_t> elements = checked_elements(shape, dtype);
    if (!elements) fail(fmt::format("shape {} overflows", shape_text(shape)));
    const std::int64_t width = dtype_bytes(dtype);
    std::int64_t last = first;
    std::int64_t row_major_stride = 1;
    bool is_row_major = true;
    for (std::size_t d = shape.size(); *elements > 0 && d-- > 0;) {
      std::int64_t reach = 0;
      if (__builtin_mul_overflow(shape[d] - 1, strides[d], &reach) ||
          __builtin_add_overflow(last, reach, &last)) {
        fail(fmt::format("strides {} overflow", shape_text(strides)));
      }
      if (shape[d] > 1 && strides[d] != row_major_stride) is_row_major = false;
      row_major_stride *= shape[d];
    }
    if (*elements == 0) {
      first = 0;
    } else if (last >= storage_elements) {
      fail(fmt::format("shape {}, strides {}, offset {} reach element {} of a storage of {}",
                       shape_text(shape), shape_text(strides), first, last, storage_elements));
    }
    TensorRecord record;
    record.place.data_offset = storage_offset + first * width;
    if (!is_row_major) record.place.strides = std::move(strides);
    record.tensor = {name_,
                     dtype,
                     std::move(shape),
                     *elements * width,
                     source_.name(),
                     is_row_major ? record.place.data_offset : -1};
    return record;
  }

  const ByteSource& source_;
  std::int64_t offset_;
  const PickleTree& tree_;
  const FindStorage& find_storage_;
  std::string name_;  ///< of the tensor being read
};

// The pickled integer 0x1950a86a20f9469cfc6c, protocol 2, which opens PyTorch's containers before 1.6.
constexpr std::string_view kLegacyMagic("\x80\x02\x8A\x0A\x6C\xFC\x9C\x46\xF9\x20\x6A\xA8\x50\x19", 14);
constexpr std::int64_t kTarMagicOffset = 257;
constexpr std::string_view kTarMagic = "ustar";

bool holds(ByteSource& source, std::int64_t offset, std::string_view text) {
  const auto bytes = static_cast<std::int64_t>(text.size());
  return source.size() >= offset + bytes && source.read_text(offset, bytes) == text;
}

// "<root>/", where root is the folder of data.pkl: "archive" or the file's stem.
std::string root_of(const ByteSource& source, const ZipArchive& archive) {
  constexpr std::string_view kPickle = "/data.pkl";
  for (const ZipMember& member : archive.members()) {
    if (member.name.ends_with(kPickle) && member.name.find('/') == member.name.size() - kPickle.size()) {
      return member.name.substr(0, member.name.size() - kPickle.size() + 1);
    }
  }
  throw Error(Code::kUnsupported, fmt::format("{}: a zip archive without data.pkl", source.name()),
              "give a file that was made by torch.save");
}

}  // namespace

std::vector<TensorRecord> read_state_dict(ByteSource& source, std::int64_t offset, std::int64_t bytes,
                                          const FindStorage& find_storage) {
  const PickleTree tree = parse_pickle(source, offset, bytes, kKnownGlobals);
  return StateDict(source, offset, tree, find_storage).tensors();
}

bool is_torch(ByteSource& source) {
  return is_zip(source) || holds(source, 0, kLegacyMagic) || holds(source, kTarMagicOffset, kTarMagic);
}

std::vector<TensorRecord> read_torch_header(ByteSource& source) {
  const char* const fix = "load it with torch and save it with torch.save of version 1.6 or later";
  SLUICE_CHECK(!holds(source, 0, kLegacyMagic), Code::kUnsupported,
               fmt::format("{}: PyTorch's container of before version 1.6", source.name()), fix);
  SLUICE_CHECK(!holds(source, kTarMagicOffset, kTarMagic), Code::kUnsupported,
               fmt::format("{}: PyTorch's tar container of version 0.1", source.name()), fix);
  if (!is_zip(source)) throw_corrupt(source, 0, "no file of torch.save: the zip magic is missing");

  const ZipArchive archive(source);
  const std::string root = root_of(source, archive);
  SLUICE_CHECK(archive.find(root + "constants.pkl") == nullptr, Code::kUnsupported,
               fmt::format("{}: a TorchScript archive", source.name()),
               "give a file that was made by torch.save(model.state_dict())");
  if (const ZipMember* order = archive.find(root + "byteorder"); order != nullptr) {
    const ZipData data = archive.locate(source, *order);
    SLUICE_CHECK(holds(source, data.offset, "little") && data.bytes == 6, Code::kUnsupported,
                 fmt::format("{}: offset {}: the byte order is not 'little'", source.name(), data.offset),
                 "save it on a little-endian machine");
  }
  std::unordered_map<std::string, ZipData> storages;
  const auto find_storage = [&](const std::string& key) {
    const auto known = storages.find(key);
    if (known != storages.end()) return known->second;
    const ZipMember* member = archive.find(root + "data/" + key);
    if (member == nullptr) {
      throw_corrupt(source, 0,
                    fmt::format("zip: storage '{}data/{}' is missing", printable(root), printable(key)));
    }
    return storages.emplace(key, archive.locate(source, *member)).first->second;
  };
  const ZipData pickle = archive.locate(source, *archive.find(root + "data.pkl"));
  return read_state_dict(source, pickle.offset, pickle.bytes, find_storage);
}

}  // namespace sluice
