// A driver that is older than the build: enough of libcuda.so.1 for the CUDA runtime to learn its version.
#include <cstring>

namespace {

constexpr int kSuccess = 0, kInvalidValue = 1, kNotSupported = 801;

int refuse() { return kNotSupported; }

}  // namespace

// NOLINTBEGIN(readability-identifier-naming): the driver's names
extern "C" {

int cuInit(unsigned flags) { return flags == 0 ? kSuccess : kInvalidValue; }

int cuDriverGetVersion(int* version) {
  *version = 11000;
  return kSuccess;
}

int cuGetExportTable(const void** /*table*/, const void* /*id*/) { return kInvalidValue; }

int cuGetProcAddress_v2(const char* symbol, void** address, int /*version*/, unsigned long long /*flags*/,
                        void* /*status*/) {
  const auto is = [&](const char* name) { return std::strcmp(symbol, name) == 0; };
  *address = is("cuInit")               ? reinterpret_cast<void*>(cuInit)
             : is("cuDriverGetVersion") ? reinterpret_cast<void*>(cuDriverGetVersion)
             : is("cuGetProcAddress")   ? reinterpret_cast<void*>(cuGetProcAddress_v2)
                                        : reinterpret_cast<void*>(refuse);
  return kSuccess;
}

int cuGetProcAddress(const char* symbol, void** address, int version, unsigned long long flags) {
  return cuGetProcAddress_v2(symbol, address, version, flags, nullptr);
}

}  // extern "C"
// NOLINTEND(readability-identifier-naming)
