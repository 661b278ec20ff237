// A value inside a parsed JSON document together with its place, so that every complaint names file and
// field ("tensors[3].offset"). Borrows the document and the file name. Thread-safe when const.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace sluice::detail {

class JsonField {
 public:
  /// `remedy` ends every message.
  JsonField(const nlohmann::json& value, const std::string& file, const std::string& remedy)
      : value_(&value), file_(&file), remedy_(&remedy) {}

  [[noreturn]] void fail(const std::string& problem) const {
    throw Error(Code::kCorrupt,
                fmt::format("{}: {}: {}", *file_, path_.empty() ? "document" : path_, problem), *remedy_);
  }
  void require(bool ok, const std::string& problem) const {
    if (!ok) fail(problem);
  }

  JsonField at(const std::string& key) const {
    require(value_->is_object(), "is not an object");
    const auto found = value_->find(key);
    const JsonField child =
        make(path_.empty() ? key : path_ + "." + key, found == value_->end() ? *value_ : *found);
    if (found == value_->end()) child.fail("is missing");
    return child;
  }
  JsonField at(std::size_t index) const {
    return make(fmt::format("{}[{}]", path_, index), value_->at(index));
  }
  /// Entries of an array.
  std::size_t size() const {
    require(value_->is_array(), "is not an array");
    return value_->size();
  }
  /// An object with exactly these keys: what is missing is found by at(), what is unknown here.
  void allow_only(const std::set<std::string>& keys) const {
    require(value_->is_object(), "is not an object");
    for (const auto& [key, unused] : value_->items()) {
      if (!keys.contains(key))
        make(path_.empty() ? key : path_ + "." + key, *value_).fail("is not a known field");
    }
  }

  /// A whole number in [least, most].
  std::int64_t integer(std::int64_t least, std::int64_t most) const {
    require(value_->is_number_integer(), "is not a whole number");
    const bool too_large =
        value_->is_number_unsigned() && value_->get<std::uint64_t>() > std::uint64_t{INT64_MAX};
    const std::int64_t number = too_large ? INT64_MAX : value_->get<std::int64_t>();
    require(number >= least && number <= most && !too_large,
            fmt::format("{} is outside {}..{}", value_->dump(), least, most));
    return number;
  }
  double number() const {
    require(value_->is_number(), "is not a number");
    return value_->get<double>();
  }
  bool boolean() const {
    require(value_->is_boolean(), "is neither true nor false");
    return value_->get<bool>();
  }
  const std::string& text() const {
    require(value_->is_string(), "is not a string");
    return value_->get_ref<const std::string&>();
  }

 private:
  JsonField make(std::string path, const nlohmann::json& value) const {
    JsonField child = *this;
    child.value_ = &value;
    child.path_ = std::move(path);
    return child;
  }

  const nlohmann::json* value_;
  const std::string* file_;
  const std::string* remedy_;
  std::string path_;
};

}  // namespace sluice::detail
