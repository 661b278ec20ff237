// What a step reads and writes, while a schedule is built.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "policy/hazards.h"

namespace sluice::policy::detail {

inline Access reads(ResourceKind kind, std::int64_t index) { return {kind, index, false}; }
inline Access writes(ResourceKind kind, std::int64_t index) { return {kind, index, true}; }

/// A short list of accesses without allocation.
class AccessList {
 public:
  void add(const Access& access) { items_.at(size_++) = access; }
  void add_if(bool condition, const Access& access) {
    if (condition) add(access);
  }
  std::span<const Access> span() const { return {items_.data(), size_}; }

 private:
  std::array<Access, 8> items_{};
  std::size_t size_ = 0;
};

}  // namespace sluice::policy::detail
