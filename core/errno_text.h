// The system's text for an errno, as messages quote it.
#pragma once

#include <string>

namespace sluice {

/// "No such file or directory", ... Thread-safe, unlike strerror.
std::string errno_text(int error);

}  // namespace sluice
