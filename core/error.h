// How Sluice reports failure: `Error` is thrown by setup, configuration and launches; `Status` is the
// value with which work that finishes elsewhere (reads, copies, requests) completes. Thread-safe.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include <fmt/format.h>

namespace sluice {

enum class Code : std::uint8_t {
  kOk,
  kInvalidArgument,  ///< the caller's input is wrong
  kNotFound,         ///< a file, tensor or key does not exist
  kCorrupt,          ///< stored data contradicts itself or its checksum
  kOutOfMemory,      ///< a budget, or the machine, is too small
  kIo,               ///< the operating system failed a read or write
  kDevice,           ///< a device failed
  kUnsupported,      ///< understood, but not built
  kCancelled,        ///< stopped on request
  kInternal,         ///< a broken invariant of Sluice itself
};

/// "invalid_argument", "not_found", ...: the spelling in JSON results.
std::string_view code_name(Code code);
/// The process exit status for `code`, 0 for kOk, else 1..127.
int exit_status(Code code);
/// The HTTP status for `code`, 200 for kOk.
int http_status(Code code);

/// A failure: what happened, with its numbers, and what the reader can do next.
class Error : public std::runtime_error {
 public:
  Error(Code code, const std::string& what, const std::string& fix = {});
  Code code() const { return code_; }
  const std::string& fix() const { return fix_; }  ///< the remedy alone; what() ends with it

 private:
  Code code_;
  std::string fix_;
};

/// Outcome of work that finished elsewhere. Cheap to copy when ok.
class Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }
  /// Throws the failure as an Error; does nothing when ok.
  void throw_if_failed() const;
  /// The Status of the exception being handled. Call inside a catch block only.
  static Status from_current_exception();

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

namespace detail {
[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);
}

/// Throws Error{code, message, fix} unless `condition`; the texts are built only on failure.
#define SLUICE_CHECK(condition, code, message, fix)    \
  do {                                                 \
    if (!(condition)) [[unlikely]] {                   \
      throw ::sluice::Error((code), (message), (fix)); \
    }                                                  \
  } while (false)

/// States an invariant that only a bug in Sluice can break; throws Error{kInternal}. Kept in release builds.
#define SLUICE_ASSERT(condition)                                          \
  do {                                                                    \
    if (!(condition)) [[unlikely]] {                                      \
      ::sluice::detail::assertion_failed(#condition, __FILE__, __LINE__); \
    }                                                                     \
  } while (false)

}  // namespace sluice
