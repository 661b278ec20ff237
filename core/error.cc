#include "core/error.h"

#include <array>
#include <new>

namespace sluice {
namespace {

struct CodeRow {
  Code code;
  std::string_view name;
  int exit_status;
  int http_status;
};

// The one table that maps a code to its name, exit status and HTTP status.
constexpr std::array kCodes = {
    CodeRow{Code::kOk, "ok", 0, 200},
    CodeRow{Code::kInvalidArgument, "invalid_argument", 2, 400},
    CodeRow{Code::kNotFound, "not_found", 3, 404},
    CodeRow{Code::kCorrupt, "corrupt", 4, 500},
    CodeRow{Code::kOutOfMemory, "out_of_memory", 5, 503},
    CodeRow{Code::kIo, "io", 6, 500},
    CodeRow{Code::kDevice, "device", 7, 500},
    CodeRow{Code::kUnsupported, "unsupported", 8, 501},
    CodeRow{Code::kCancelled, "cancelled", 9, 499},
    CodeRow{Code::kInternal, "internal", 10, 500},
};

const CodeRow& row_of(Code code) { return kCodes.at(static_cast<std::size_t>(code)); }

std::string with_fix(const std::string& what, const std::string& fix) {
  return fix.empty() ? what : what + "; " + fix;
}

}  // namespace

std::string_view code_name(Code code) { return row_of(code).name; }
int exit_status(Code code) { return row_of(code).exit_status; }
int http_status(Code code) { return row_of(code).http_status; }

Error::Error(Code code, const std::string& what, const std::string& fix)
    : std::runtime_error(with_fix(what, fix)), code_(code), fix_(fix) {}

void Status::throw_if_failed() const {
  if (!ok()) throw Error(code_, message_);
}

Status Status::from_current_exception() {
  try {
    throw;
  } catch (const Error& e) {
    return {e.code(), e.what()};
  } catch (const std::bad_alloc&) {
    return {Code::kOutOfMemory, "the process ran out of memory"};
  } catch (const std::exception& e) {
    return {Code::kInternal, e.what()};
  }
}

namespace detail {
void assertion_failed(const char* expression, const char* file, int line) {
  throw Error(Code::kInternal,
              fmt::format("internal error: {} does not hold at {}:{}", expression, file, line),
              "please report this with the command line");
}
}  // namespace detail

}  // namespace sluice
