// A library of the CUDA toolkit that is looked for when it is needed: programs start where it is missing.
#pragma once

#include <memory>
#include <string>

namespace sluice::kernels {

class SharedLibrary {
 public:
  /// Opens `name` ("libcusparse.so.12") where the system finds it, or in the folder of cuBLASLt. Throws
  /// Error{kNotFound} with the loader's message.
  explicit SharedLibrary(const std::string& name);

  /// Sets `function` to the one of this name. Throws Error{kNotFound}.
  template <class Function>
  void find(const char* name, Function*& function) const {
    function = reinterpret_cast<Function*>(address(name));
  }

 private:
  struct Close {
    void operator()(void* handle) const noexcept;
  };
  void* address(const char* name) const;

  std::string name_;
  std::unique_ptr<void, Close> handle_;
};

}  // namespace sluice::kernels
