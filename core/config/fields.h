// How a struct becomes configurable. It lists its fields once, in a free function beside it:
//
//   struct CacheConfig { double pinned_gib = 4; std::optional<int> threads; Policy policy = Policy::kLru; };
//
//   template <class Visitor>
//   void visit_fields(Visitor& visit, CacheConfig& config) {
//     visit("pinned_gib", config.pinned_gib, "pinned memory in GiB", above(0));
//     visit("threads", config.threads, "threads that fill it; null takes all cores");
//     visit("policy", config.policy, "what is dropped first");
//   }
//   constexpr auto enum_names(Policy) {
//     return std::to_array<EnumName<Policy>>({{Policy::kLru, "lru"}, {Policy::kFifo, "fifo"}});
//   }
//
// Parsing, printing, help and round-trip tests use this list (config.h). A field may be a flag, a number, a
// text, an enum, another such struct, or an optional or a vector of these. Pure, thread-safe.
#pragma once

#include <concepts>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/config/scalars.h"

namespace sluice {

template <class Enum>
struct EnumName {
  Enum value;
  std::string_view name;
};

namespace detail {

/// Stands for any visitor where a concept asks whether visit_fields exists.
struct AnyVisitor {
  template <class T>
  void operator()(std::string_view, T&, std::string_view, const Bounds& = {}) {}
};

template <class T>
inline constexpr bool kIsVector = false;
template <class T>
inline constexpr bool kIsVector<std::vector<T>> = true;
template <class T>
inline constexpr bool kIsOptional = false;
template <class T>
inline constexpr bool kIsOptional<std::optional<T>> = true;

}  // namespace detail

template <class T>
concept ConfigStruct = std::is_class_v<T> && requires(detail::AnyVisitor visitor, T& config) {
  visit_fields(visitor, config);
};

template <class T>
concept ConfigEnum = std::is_enum_v<T> && requires {
  enum_names(T{});
};

template <class T>
concept ConfigNumber = std::integral<T> || std::floating_point<T>;

/// "" or "a.b": the full key of the field `name` of the struct at `prefix`.
inline std::string join_key(std::string_view prefix, std::string_view name) {
  return prefix.empty() ? std::string(name) : std::string(prefix).append(".").append(name);
}

}  // namespace sluice
