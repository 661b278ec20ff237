#include "kernels/bench/cuda/shared_library.h"

#include <filesystem>

#include <cublasLt.h>
#include <dlfcn.h>

#include "core/error.h"

namespace sluice::kernels {

void SharedLibrary::Close::operator()(void* handle) const noexcept { dlclose(handle); }

SharedLibrary::SharedLibrary(const std::string& name) : name_(name) {
  handle_.reset(dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL));
  if (handle_ != nullptr) return;
  const std::string failure = dlerror();
  Dl_info beside{};
  if (dladdr(reinterpret_cast<void*>(&cublasLtCreate), &beside) != 0 && beside.dli_fname != nullptr) {
    const auto path = std::filesystem::path(beside.dli_fname).parent_path() / name;
    handle_.reset(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL));
  }
  SLUICE_CHECK(handle_ != nullptr, Code::kNotFound, failure,
               "install the library, or add its folder to LD_LIBRARY_PATH");
}

void* SharedLibrary::address(const char* name) const {
  void* const found = dlsym(handle_.get(), name);
  SLUICE_CHECK(found != nullptr, Code::kNotFound, fmt::format("{} has no {}", name_, name),
               "install the version that this build was made with");
  return found;
}

}  // namespace sluice::kernels
