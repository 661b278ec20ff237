// The C interface: checks what C cannot, calls the C++ beneath, and turns what it throws into a status.
#include "sluice/spmm.h"

#include <algorithm>
#include <limits>
#include <new>
#include <optional>
#include <string>
#include <thread>

#include "core/build_config.h"
#include "core/error.h"
#include "kernels/device/cpu/thread_pool.h"
#include "kernels/format/encode_parallel.h"
#include "kernels/spmm/spmm_context.h"

namespace {

using namespace sluice;
using namespace sluice::kernels;

thread_local std::string last_error;

sluice_spmm_status status_of(Code code) {
  switch (code) {
    case Code::kOk:
      return SLUICE_SPMM_OK;
    case Code::kInvalidArgument:
    case Code::kNotFound:
      return SLUICE_SPMM_INVALID_ARGUMENT;
    case Code::kCorrupt:
      return SLUICE_SPMM_CORRUPT;
    case Code::kOutOfMemory:
      return SLUICE_SPMM_OUT_OF_MEMORY;
    case Code::kDevice:
      return SLUICE_SPMM_DEVICE;
    case Code::kUnsupported:
      return SLUICE_SPMM_UNSUPPORTED;
    default:
      return SLUICE_SPMM_INTERNAL;
  }
}

/// Runs body(); what it throws becomes the thread's last error.
template <class Body>
sluice_spmm_status guarded(const Body& body) noexcept {
  try {
    try {
      body();
      return SLUICE_SPMM_OK;
    } catch (const std::bad_alloc&) {
      last_error = "the system gives no more memory";
      return SLUICE_SPMM_OUT_OF_MEMORY;
    } catch (...) {
      const Status failure = Status::from_current_exception();
      last_error = failure.message();
      return status_of(failure.code());
    }
  } catch (...) {  // not even the message could be kept
    return SLUICE_SPMM_INTERNAL;
  }
}

void require(bool condition, const char* what) {
  SLUICE_CHECK(condition, Code::kInvalidArgument, what, "see sluice/spmm.h");
}

struct FormatRow {
  sluice_spmm_format format;
  Encoding encoding;
};
constexpr FormatRow kFormats[] = {
    {SLUICE_SPMM_TILED_CSL, Encoding::kTiledCsl},
    {SLUICE_SPMM_BANK_CSL, Encoding::kBankCsl},
    {SLUICE_SPMM_BITMAP, Encoding::kBitmap},
    {SLUICE_SPMM_INT8, Encoding::kInt8},
    {SLUICE_SPMM_INT8_G128, Encoding::kInt8G128},
    {SLUICE_SPMM_INT4_G64, Encoding::kInt4G64},
    {SLUICE_SPMM_INT4_G128, Encoding::kInt4G128},
    {SLUICE_SPMM_INT4_SYM_G64, Encoding::kInt4SymG64},
    {SLUICE_SPMM_INT4_SYM_G128, Encoding::kInt4SymG128},
    {SLUICE_SPMM_BITMAP_INT8, Encoding::kBitmapInt8},
    {SLUICE_SPMM_BITMAP_INT4, Encoding::kBitmapInt4},
    {SLUICE_SPMM_PAIRS24, Encoding::kPairs24},
};

std::optional<DType> dtype_of(sluice_spmm_dtype dtype) {
  switch (dtype) {
    case SLUICE_SPMM_F16:
      return DType::kF16;
    case SLUICE_SPMM_BF16:
      return DType::kBF16;
    case SLUICE_SPMM_F32:
      return DType::kF32;
  }
  return {};
}

/// Rows, columns and tokens are below it: kernels count them in 32 bits.
constexpr std::int64_t kMostRows = std::int64_t{1} << 31;
/// Elements of a matrix, at most. Bytes that follow from a matrix of so many are far from 2^63.
constexpr std::int64_t kMostElements = std::int64_t{1} << 48;

/// The caller's matrix, checked.
struct Checked {
  explicit Checked(const sluice_spmm_matrix* matrix) {
    require(matrix != nullptr, "matrix is null");
    const auto row = std::ranges::find(kFormats, matrix->format, &FormatRow::format);
    SLUICE_CHECK(row != std::end(kFormats), Code::kInvalidArgument,
                 fmt::format("{} is no format", static_cast<int>(matrix->format)), "see sluice_spmm_format");
    const std::optional<DType> dtype = dtype_of(matrix->dtype);
    require(dtype && *dtype != DType::kF32, "matrix.dtype is neither F16 nor BF16");
    SLUICE_CHECK(matrix->rows > 0 && matrix->cols > 0 && matrix->rows < kMostRows && matrix->cols < kMostRows,
                 Code::kInvalidArgument, fmt::format("a matrix of {} x {}", matrix->rows, matrix->cols),
                 "give at least one row and column, and less than 2^31");
    SLUICE_CHECK(matrix->rows * matrix->cols <= kMostElements, Code::kInvalidArgument,
                 fmt::format("a matrix of {} x {} has {} elements, more than 2^48", matrix->rows,
                             matrix->cols, matrix->rows * matrix->cols),
                 "cut it into matrices of fewer rows");
    format = {row->encoding, *dtype};
    tensor = {"matrix", 0, matrix->rows, matrix->cols, false, SplitRule::kRows};
  }
  WeightView view(const void* bytes, std::size_t size) const {
    return {format, {static_cast<const std::byte*>(bytes), size}, tensor.rows, tensor.cols};
  }
  /// Products and codecs read the bytes by their number, so it is checked before anything else.
  void require_size(std::size_t bytes) const {
    const ByteRange range = weight_byte_range(format, tensor.rows, tensor.cols);
    SLUICE_CHECK(
        static_cast<std::int64_t>(bytes) >= range.min && static_cast<std::int64_t>(bytes) <= range.max,
        Code::kCorrupt,
        fmt::format("a {} matrix of {} x {} with {} bytes, must have {} to {}", weight_format_name(format),
                    tensor.rows, tensor.cols, bytes, range.min, range.max),
        "give the bytes of sluice_spmm_encoded_write, and the shape that was encoded");
  }
  std::size_t dense_bytes(DType dtype) const {
    return static_cast<std::size_t>(tensor.rows * tensor.cols * dtype_bytes(dtype));
  }

  WeightFormat format;
  TensorSpec tensor;
};

void require_tokens(std::int64_t tokens) {
  SLUICE_CHECK(tokens >= 0 && tokens < kMostRows, Code::kInvalidArgument, fmt::format("{} tokens", tokens),
               "give 0 to 2^31 - 1 of them; cut a longer x into several products");
}

SpmmContext::Problem problem_of(const sluice_spmm_matrix* matrix, std::size_t weight_bytes,
                                std::int64_t tokens) {
  const Checked checked(matrix);
  checked.require_size(weight_bytes);
  require_tokens(tokens);
  return {checked.format, checked.tensor.rows, checked.tensor.cols, weight_bytes, tokens};
}

int num_threads(int asked) {
  require(asked >= 0 && asked <= 1024, "threads is not within 0..1024");
  if (asked > 0) return asked;
  return static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1U, 1024U));
}

/// The stride of `rows` rows of `cols` elements, for which 0 stands for no padding; refused if they overlap
/// or their bytes wrap around. `what` is the operand's name, as in "x_stride".
std::int64_t stride_of(std::int64_t stride, std::int64_t rows, std::int64_t cols, DType dtype,
                       const char* what) {
  SLUICE_CHECK(stride == 0 || stride >= cols, Code::kInvalidArgument,
               fmt::format("{}_stride is {}, and rows have {} elements", what, stride, cols),
               "give the distance between rows in elements, or 0 for rows without padding");
  if (stride == 0) stride = cols;
  const std::int64_t most = std::numeric_limits<std::int64_t>::max() / dtype_bytes(dtype);
  SLUICE_CHECK(
      rows <= 1 || stride <= (most - cols) / (rows - 1), Code::kInvalidArgument,
      fmt::format("{}: {} rows at a distance of {} elements are more than 2^63 bytes", what, rows, stride),
      fmt::format("look at tokens and {}_stride", what));
  return stride;
}

std::byte* bytes_of(void* pointer) { return static_cast<std::byte*>(pointer); }
const std::byte* bytes_of(const void* pointer) { return static_cast<const std::byte*>(pointer); }

Epilogue epilogue_of(sluice_spmm_activation activation) {
  switch (activation) {
    case SLUICE_SPMM_NO_ACTIVATION:
      return Epilogue::kNone;
    case SLUICE_SPMM_RELU:
      return Epilogue::kRelu;
    case SLUICE_SPMM_GELU:
      return Epilogue::kGelu;
    case SLUICE_SPMM_GELU_TANH:
      return Epilogue::kGeluTanh;
  }
  throw Error(Code::kInvalidArgument, fmt::format("{} is no activation", static_cast<int>(activation)),
              "see sluice_spmm_activation");
}

/// What `linear` takes, with every pointer that it reads or writes there.
LinearArgs linear_args(const Checked& matrix, const sluice_spmm_product& p) {
  const std::int64_t out = matrix.tensor.rows;
  const std::int64_t in = matrix.tensor.cols;
  require(p.weight != nullptr && p.x != nullptr && p.y != nullptr, "weight, x or y is null");
  require(reinterpret_cast<std::uintptr_t>(p.weight) % 256 == 0, "weight is not 256-byte aligned");
  require(reinterpret_cast<std::uintptr_t>(p.workspace) % 256 == 0, "workspace is not 256-byte aligned");
  SLUICE_CHECK(p.workspace_bytes <= std::numeric_limits<std::ptrdiff_t>::max(), Code::kInvalidArgument,
               fmt::format("a workspace of {} bytes, more than 2^63", p.workspace_bytes),
               "give the bytes of the allocation");
  const std::optional<DType> y_dtype = dtype_of(p.y_dtype);
  require(y_dtype && (*y_dtype == matrix.format.dtype || *y_dtype == DType::kF32),
          "y_dtype is neither the matrix's type nor F32");
  require(p.residual == nullptr || *y_dtype != DType::kF32, "y of F32 takes no residual");
  LinearArgs args;
  args.x = {bytes_of(p.x), matrix.format.dtype, p.tokens, in,
            stride_of(p.x_stride, p.tokens, in, matrix.format.dtype, "x")};
  args.weight = matrix.view(p.weight, p.weight_bytes);
  if (p.bias != nullptr) args.bias = {bytes_of(p.bias), matrix.format.dtype, out};
  args.epilogue = epilogue_of(p.activation);
  if (p.residual != nullptr) {
    args.residual = {bytes_of(p.residual), *y_dtype, p.tokens, out,
                     stride_of(p.residual_stride, p.tokens, out, *y_dtype, "residual")};
  }
  args.y = {bytes_of(p.y), *y_dtype, p.tokens, out, stride_of(p.y_stride, p.tokens, out, *y_dtype, "y")};
  return args;
}

}  // namespace

struct sluice_spmm_encoded {
  EncodedMatrix matrix;
  int threads;
};
struct sluice_spmm_context {
  std::unique_ptr<SpmmContext> context;
};

const char* sluice_spmm_status_name(sluice_spmm_status status) {
  switch (status) {
    case SLUICE_SPMM_OK:
      return "ok";
    case SLUICE_SPMM_INVALID_ARGUMENT:
      return "invalid_argument";
    case SLUICE_SPMM_CORRUPT:
      return "corrupt";
    case SLUICE_SPMM_OUT_OF_MEMORY:
      return "out_of_memory";
    case SLUICE_SPMM_DEVICE:
      return "device";
    case SLUICE_SPMM_UNSUPPORTED:
      return "unsupported";
    case SLUICE_SPMM_INTERNAL:
      return "internal";
  }
  return "unknown";
}

const char* sluice_spmm_last_error(void) { return last_error.c_str(); }

const char* sluice_spmm_version(void) { return kVersion.data(); }

const char* sluice_spmm_format_name(sluice_spmm_format format) {
  const auto row = std::ranges::find(kFormats, format, &FormatRow::format);
  return row == std::end(kFormats) ? nullptr : encoding_name(row->encoding).data();
}

sluice_spmm_status sluice_spmm_parse_format(const char* name, sluice_spmm_format* format) {
  return guarded([&] {
    require(name != nullptr && format != nullptr, "name or format is null");
    const std::optional<Encoding> encoding = parse_encoding(name);
    const auto row =
        encoding ? std::ranges::find(kFormats, *encoding, &FormatRow::encoding) : std::end(kFormats);
    SLUICE_CHECK(row != std::end(kFormats), Code::kInvalidArgument, fmt::format("'{}' is no format", name),
                 "see sluice_spmm_format_name");
    *format = row->format;
  });
}

sluice_spmm_status sluice_spmm_encode(const sluice_spmm_matrix* matrix, sluice_spmm_dtype source,
                                      const void* values, int threads, sluice_spmm_encoded** encoded) {
  return guarded([&] {
    require(values != nullptr && encoded != nullptr, "values or encoded is null");
    *encoded = nullptr;
    const Checked checked(matrix);
    const std::optional<DType> dtype = dtype_of(source);
    require(dtype.has_value(), "source is no type");
    const int used = num_threads(threads);
    ThreadPool pool(used);
    *encoded = new sluice_spmm_encoded{
        EncodedMatrix(checked.tensor, checked.format, *dtype,
                      {static_cast<const std::byte*>(values), checked.dense_bytes(*dtype)}, pool),
        used};
  });
}

size_t sluice_spmm_encoded_bytes(const sluice_spmm_encoded* encoded) {
  return encoded == nullptr ? 0 : static_cast<size_t>(encoded->matrix.bytes());
}

sluice_spmm_status sluice_spmm_encoded_write(const sluice_spmm_encoded* encoded, void* to, size_t capacity) {
  return guarded([&] {
    require(encoded != nullptr && to != nullptr, "encoded or to is null");
    const size_t bytes = sluice_spmm_encoded_bytes(encoded);
    SLUICE_CHECK(bytes <= capacity, Code::kInvalidArgument,
                 fmt::format("{} bytes do not fit into {}", bytes, capacity),
                 "make room for sluice_spmm_encoded_bytes");
    ThreadPool pool(encoded->threads);
    encoded->matrix.write({static_cast<std::byte*>(to), bytes}, pool);
  });
}

void sluice_spmm_encoded_free(sluice_spmm_encoded* encoded) { delete encoded; }

sluice_spmm_status sluice_spmm_byte_range(const sluice_spmm_matrix* matrix, size_t* fewest, size_t* most) {
  return guarded([&] {
    require(fewest != nullptr && most != nullptr, "fewest or most is null");
    const Checked checked(matrix);
    const ByteRange range = weight_byte_range(checked.format, checked.tensor.rows, checked.tensor.cols);
    *fewest = static_cast<size_t>(range.min);
    *most = static_cast<size_t>(range.max);
  });
}

sluice_spmm_status sluice_spmm_check(const sluice_spmm_matrix* matrix, const void* encoded, size_t bytes) {
  return guarded([&] {
    const Checked checked(matrix);
    require(encoded != nullptr, "encoded is null");
    checked.require_size(bytes);
    codec_of(checked.format.encoding).check(checked.view(encoded, bytes), checked.tensor.name);
  });
}

sluice_spmm_status sluice_spmm_decode(const sluice_spmm_matrix* matrix, const void* encoded, size_t bytes,
                                      int threads, void* values) {
  return guarded([&] {
    const Checked checked(matrix);
    require(encoded != nullptr && values != nullptr, "encoded or values is null");
    checked.require_size(bytes);
    codec_of(checked.format.encoding).check(checked.view(encoded, bytes), checked.tensor.name);
    ThreadPool pool(num_threads(threads));
    expand_matrix(checked.view(encoded, bytes),
                  {static_cast<std::uint16_t*>(values), checked.dense_bytes(DType::kF16) / 2}, pool);
  });
}

sluice_spmm_status sluice_spmm_context_create(int device, void* stream, sluice_spmm_context** context) {
  return guarded([&] {
    require(context != nullptr, "context is null");
    *context = nullptr;
    *context = new sluice_spmm_context{make_spmm_context(device, stream)};
  });
}

void sluice_spmm_context_free(sluice_spmm_context* context) { delete context; }

sluice_spmm_status sluice_spmm_workspace_bytes(const sluice_spmm_context* context,
                                               const sluice_spmm_matrix* matrix, size_t weight_bytes,
                                               int64_t tokens, size_t* bytes) {
  return guarded([&] {
    const SpmmContext::Problem problem = problem_of(matrix, weight_bytes, tokens);
    require(context != nullptr && bytes != nullptr, "context or bytes is null");
    *bytes = static_cast<size_t>(context->context->workspace_bytes(problem));
  });
}

sluice_spmm_status sluice_spmm_kernel_name(const sluice_spmm_context* context,
                                           const sluice_spmm_matrix* matrix, size_t weight_bytes,
                                           int64_t tokens, const char** name) {
  return guarded([&] {
    const SpmmContext::Problem problem = problem_of(matrix, weight_bytes, tokens);
    require(context != nullptr && name != nullptr, "context or name is null");
    *name = context->context->kernel_name(problem);
  });
}

sluice_spmm_status sluice_spmm_run(sluice_spmm_context* context, const sluice_spmm_matrix* matrix,
                                   const sluice_spmm_product* product) {
  return guarded([&] {
    require(product != nullptr, "product is null");
    require(product->struct_bytes == sizeof(sluice_spmm_product),
            "struct_bytes is not sizeof(sluice_spmm_product)");
    require_tokens(product->tokens);
    const Checked checked(matrix);
    LinearArgs args;
    if (product->tokens > 0) {
      checked.require_size(product->weight_bytes);
      args = linear_args(checked, *product);
    }
    require(context != nullptr, "context is null");
    if (product->tokens == 0) return;
    context->context->run(args, {static_cast<std::byte*>(product->workspace), product->workspace_bytes});
  });
}

namespace sluice::kernels {

std::unique_ptr<SpmmContext> make_spmm_context([[maybe_unused]] int device, [[maybe_unused]] void* stream) {
  if constexpr (kWithCuda) return detail::make_spmm_context_cuda(device, stream);
  throw Error(Code::kUnsupported, "no CUDA device in this build",
              "build Sluice with `bash scripts/build.sh cuda`");
}

}  // namespace sluice::kernels
