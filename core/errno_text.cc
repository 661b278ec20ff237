#include "core/errno_text.h"

#include <system_error>

namespace sluice {

std::string errno_text(int error) { return std::system_category().message(error); }

}  // namespace sluice
