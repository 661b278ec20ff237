#include "core/store/manifest.h"

#include <charconv>
#include <cmath>
#include <set>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/store/json_field.h"
#include "core/store/posix_file.h"
#include "core/store/spec_json.h"
#include "core/units.h"

namespace sluice {
namespace {

using detail::JsonField;
using nlohmann::json;

constexpr std::int64_t kMaxManifestBytes = 256_MiB;
const std::string kRemedy = "convert the checkpoint again with 'sluice convert'";

std::string bad_file_name(const std::string& name) {
  if (name.empty() || name == "." || name == "..") return "is not a file name";
  if (name.find('/') != std::string::npos || name.find('\\') != std::string::npos ||
      name.find('\0') != std::string::npos) {
    return "must be a plain file name, without a folder";
  }
  if (name.size() > 255) return "is longer than 255 bytes";
  if (name == kManifestName) return "is the manifest itself";
  return {};
}

/// Plain names, none of them twice in the whole store.
std::vector<std::string> read_file_names(const JsonField& field, std::set<std::string>& seen) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < field.size(); ++i) {
    const JsonField entry = field.at(i);
    const std::string& name = entry.text();
    const std::string problem = bad_file_name(name);
    entry.require(problem.empty(), fmt::format("'{}' {}", name, problem));
    entry.require(seen.insert(name).second, fmt::format("'{}' is named twice", name));
    names.push_back(name);
  }
  return names;
}

std::uint64_t read_checksum(const JsonField& field) {
  const std::string& text = field.text();
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  field.require(text.size() == 16 && error == std::errc{} && end == text.data() + text.size(),
                fmt::format("'{}' is not 16 hexadecimal digits", text));
  return value;
}

void check_shape(const JsonField& field, const TensorSpec& spec) {
  std::vector<std::int64_t> found;
  for (std::size_t i = 0; i < field.size(); ++i) found.push_back(field.at(i).integer(0, INT64_MAX));
  std::vector<std::int64_t> expected = {spec.cols};
  if (!spec.is_vector) expected.insert(expected.begin(), spec.rows);
  field.require(found == expected, fmt::format("[{}] differs from the model's [{}]", fmt::join(found, ", "),
                                               fmt::join(expected, ", ")));
}

StoredTensor read_tensor(const JsonField& field, const TensorSpec& spec, std::size_t num_files) {
  field.allow_only({"name", "shape", "format", "file", "offset", "bytes", "checksum", "zeros", "error"});
  StoredTensor tensor;
  tensor.spec = spec;
  field.at("name").require(
      field.at("name").text() == spec.name,
      fmt::format("'{}' stands where the model has '{}'", field.at("name").text(), spec.name));
  check_shape(field.at("shape"), spec);
  const auto format = parse_weight_format(field.at("format").text());
  field.at("format").require(format.has_value(), fmt::format("'{}' is not known", field.at("format").text()));
  tensor.format = *format;
  tensor.file =
      static_cast<std::int32_t>(field.at("file").integer(0, static_cast<std::int64_t>(num_files) - 1));
  field.at("file").require(tensor.file == spec.unit,
                           fmt::format("{} holds another unit than {}", tensor.file, spec.unit));
  tensor.offset = field.at("offset").integer(0, std::int64_t{1} << 62);
  field.at("offset").require(tensor.offset % kPageAlign == 0,
                             fmt::format("{} is not a multiple of {}", tensor.offset, kPageAlign));
  tensor.bytes = field.at("bytes").integer(0, std::int64_t{1} << 61);
  const std::string format_name = weight_format_name(tensor.format);
  field.at("format").require(!spec.is_vector || tensor.format.encoding == Encoding::kDense,
                             fmt::format("'{}' cannot hold a vector", format_name));
  const ByteRange range = weight_byte_range(tensor.format, spec.rows, spec.cols);
  if (range.min == range.max) {
    field.at("bytes").require(tensor.bytes == range.min,
                              fmt::format("{} differs from the {} of {} [{}, {}]", tensor.bytes, range.min,
                                          format_name, spec.rows, spec.cols));
  } else {
    field.at("bytes").require(
        tensor.bytes >= range.min && tensor.bytes <= range.max && tensor.bytes % 16 == 0,
        fmt::format("{} is not a multiple of 16 from {} to {}, as {} [{}, {}] has", tensor.bytes, range.min,
                    range.max, format_name, spec.rows, spec.cols));
  }
  tensor.checksum = read_checksum(field.at("checksum"));
  tensor.stats.zeros = field.at("zeros").integer(0, spec.rows * spec.cols);
  tensor.stats.error = field.at("error").number();
  field.at("error").require(tensor.stats.error >= 0 && std::isfinite(tensor.stats.error),
                            fmt::format("{} is no relative error", tensor.stats.error));
  return tensor;
}

/// In a file the tensors follow each other in the order of the pass, so one forward scan finds overlaps.
void read_tensors(const JsonField& field, Manifest& manifest) {
  // Every layer has tensors: without this test a short document could ask for a list of millions.
  field.require(static_cast<std::int64_t>(field.size()) >= manifest.spec.num_layers,
                fmt::format("has {} entries for {} layers", field.size(), manifest.spec.num_layers));
  const std::vector<TensorSpec> wanted = model_tensors(manifest.spec);
  field.require(field.size() == wanted.size(),
                fmt::format("has {} entries, the model has {} tensors", field.size(), wanted.size()));
  std::vector<std::int64_t> end_of_file(manifest.files.size(), 0);
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const StoredTensor tensor = read_tensor(field.at(i), wanted[i], manifest.files.size());
    std::int64_t& end = end_of_file[static_cast<std::size_t>(tensor.file)];
    field.at(i).at("offset").require(
        tensor.offset >= end,
        fmt::format("{} overlaps the tensor before it, which ends at {}", tensor.offset, end));
    end = align_up(tensor.offset + tensor.bytes, kPageAlign);
    manifest.tensors.push_back(tensor);
  }
}

void check_files_on_disk(const std::filesystem::path& store, const Manifest& manifest) {
  const std::string manifest_file = (store / kManifestName).string();
  for (std::size_t i = 0; i < manifest.files.size(); ++i) {
    const std::filesystem::path file = store / manifest.files[i];
    std::int64_t expected = 0;
    for (const StoredTensor& tensor : manifest.tensors) {
      if (tensor.file == static_cast<std::int32_t>(i)) {
        expected = align_up(tensor.offset + tensor.bytes, kPageAlign);
      }
    }
    std::error_code problem;
    const auto found = static_cast<std::int64_t>(std::filesystem::file_size(file, problem));
    SLUICE_CHECK(!problem, Code::kNotFound,
                 fmt::format("{}: named by {} in files[{}], cannot be opened: {}", file.string(),
                             manifest_file, i, problem.message()),
                 kRemedy);
    SLUICE_CHECK(found == expected, Code::kCorrupt,
                 fmt::format("{}: has {} bytes, {} needs {} (files[{}])", file.string(), found, manifest_file,
                             expected, i),
                 kRemedy);
  }
  for (std::size_t i = 0; i < manifest.tokenizer_files.size(); ++i) {
    const std::filesystem::path file = store / manifest.tokenizer_files[i];
    SLUICE_CHECK(std::filesystem::is_regular_file(file), Code::kNotFound,
                 fmt::format("{}: named by {} in tokenizer_files[{}], does not exist", file.string(),
                             manifest_file, i),
                 kRemedy);
  }
}

}  // namespace

Manifest parse_manifest(std::string_view text, const std::string& file_name) {
  json document;
  try {
    document = json::parse(text);
  } catch (const json::exception& problem) {
    throw Error(Code::kCorrupt, fmt::format("{}: is not JSON: {}", file_name, problem.what()), kRemedy);
  }
  const JsonField root(document, file_name, kRemedy);
  // The version comes first: another version may have other fields.
  const std::int64_t version = root.at("format_version").integer(0, INT32_MAX);
  SLUICE_CHECK(version == kStoreFormatVersion, Code::kUnsupported,
               fmt::format("{}: format_version: {} is not read, this sluice reads {}", file_name, version,
                           kStoreFormatVersion),
               kRemedy);
  root.allow_only({"format_version", "spec", "source", "tokenizer_files", "files", "tensors"});

  Manifest manifest;
  manifest.spec = detail::spec_from_json(root.at("spec"));
  manifest.source.text = root.at("source").text();
  std::set<std::string> seen;
  manifest.tokenizer_files = read_file_names(root.at("tokenizer_files"), seen);
  manifest.files = read_file_names(root.at("files"), seen);
  root.at("files").require(
      static_cast<std::int64_t>(manifest.files.size()) == num_units(manifest.spec),
      fmt::format("has {} entries, the model has {} units", manifest.files.size(), num_units(manifest.spec)));
  read_tensors(root.at("tensors"), manifest);
  return manifest;
}

Manifest read_manifest(const std::filesystem::path& store) {
  const std::filesystem::path file = store / kManifestName;
  SLUICE_CHECK(std::filesystem::is_regular_file(file), Code::kNotFound,
               fmt::format("{}: is not a model store, it has no {}", store.string(), kManifestName),
               "give a folder that 'sluice convert' wrote");
  Manifest manifest = parse_manifest(detail::read_text_file(file, kMaxManifestBytes), file.string());
  check_files_on_disk(store, manifest);
  return manifest;
}

std::string manifest_to_json(const Manifest& manifest) {
  // A name may come from a folder's name, which need not be UTF-8.
  const auto dump = [](const nlohmann::ordered_json& value, int indent) {
    return value.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  };
  nlohmann::ordered_json head = {{"format_version", kStoreFormatVersion},
                                 {"spec", detail::spec_to_json(manifest.spec)},
                                 {"source", manifest.source.text},
                                 {"tokenizer_files", manifest.tokenizer_files},
                                 {"files", manifest.files}};
  std::string text = dump(head, 2);
  text.resize(text.size() - 2);  // the closing "\n}"
  text += ",\n  \"tensors\": [";
  for (const StoredTensor& tensor : manifest.tensors) {  // one tensor a line
    nlohmann::ordered_json shape = nlohmann::ordered_json::array();
    if (!tensor.spec.is_vector) shape.push_back(tensor.spec.rows);
    shape.push_back(tensor.spec.cols);
    const nlohmann::ordered_json row = {{"name", tensor.spec.name},
                                        {"shape", std::move(shape)},
                                        {"format", weight_format_name(tensor.format)},
                                        {"file", tensor.file},
                                        {"offset", tensor.offset},
                                        {"bytes", tensor.bytes},
                                        {"checksum", fmt::format("{:016x}", tensor.checksum)},
                                        {"zeros", tensor.stats.zeros},
                                        {"error", tensor.stats.error}};
    text += (&tensor == manifest.tensors.data() ? "\n    " : ",\n    ") + dump(row, -1);
  }
  return text + "\n  ]\n}\n";
}

bool is_store(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path / kManifestName, ignored);
}

}  // namespace sluice
