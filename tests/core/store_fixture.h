// A model small enough to write in milliseconds and a scratch folder, for the tests of stores and
// conversions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/store/store_writer.h"
#include "tests/support/error_of.h"

namespace sluice::testing {

/// A new folder under the system's temporary folder, removed at the end.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "sluice_test_XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw Error(Code::kIo, "cannot make " + name);
    path_ = name;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

inline ModelSpec tiny_spec() {
  ModelSpec spec;
  spec.name = "tiny";
  spec.num_layers = 2;
  spec.hidden_dim = 48;
  spec.embed_dim = 24;  // with projections
  spec.ffn_dim = 100;   // sizes that are no multiple of a page
  spec.num_heads = spec.num_kv_heads = 3;
  spec.head_dim = 16;
  spec.vocab_size = 301;
  spec.max_positions = 64;
  return spec;
}

inline StorePlan plan_of(const ModelSpec& spec, const std::string& source = "source v1\n") {
  return {spec, std::vector<WeightFormat>(model_tensors(spec).size(), WeightFormat::kDenseF16), {source}};
}

/// Bytes that differ between tensors and positions.
inline std::vector<std::byte> payload_of(const StoredTensor& tensor, std::size_t index) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.bytes));
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>((i * 31 + index * 7 + 1) & 0xFF);
  return bytes;
}

inline void write_tensors(StoreWriter& writer, std::int64_t until) {
  while (writer.next_tensor() < until) {
    const auto index = static_cast<std::size_t>(writer.next_tensor());
    writer.write_tensor(payload_of(writer.tensors()[index], index));
  }
}

inline Manifest write_store(const std::filesystem::path& store, const StorePlan& plan) {
  StoreWriter writer(StoreLock::acquire(store), plan, ExistingStore::kRefuse);
  write_tensors(writer, static_cast<std::int64_t>(writer.tensors().size()));
  return writer.commit();
}

inline std::string read_file(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
inline void write_file(const std::filesystem::path& file, std::string_view text) {
  std::ofstream(file, std::ios::binary) << text;
}

}  // namespace sluice::testing
