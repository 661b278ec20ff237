/* Products over sparse and quantised weights, as a C library: y = activation(x W^T + bias) + residual, where
 * W stays in one of Sluice's stored formats in device memory.
 *
 *   1. sluice_spmm_encode turns a dense matrix in host memory into a format; sluice_spmm_encoded_write
 *      puts its bytes where the caller wants them, in host memory again. A file of them is as good, after
 *      sluice_spmm_check.
 *   2. The caller copies the bytes to device memory, 256-byte aligned, and creates a context for a stream.
 *   3. sluice_spmm_run enqueues a product there, with scratch of sluice_spmm_workspace_bytes.
 *
 * Every function that may fail returns a status; sluice_spmm_last_error then tells what and what to do.
 * Nothing is thrown across the interface. Matrices are row-major. Functions on host memory may be called from
 * any thread; a context belongs to one thread at a time. The layout of the formats is documented beside their
 * source, in kernels/format; it depends on nothing but the matrix, so bytes can be stored and exchanged. */
#ifndef SLUICE_SPMM_H
#define SLUICE_SPMM_H

#include <stddef.h>
#include <stdint.h>

/* NOLINTBEGIN(readability-identifier-naming): names as C libraries have them */
#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SLUICE_SPMM_API __attribute__((visibility("default")))
#else
#define SLUICE_SPMM_API
#endif

typedef enum sluice_spmm_status {
  SLUICE_SPMM_OK = 0,
  SLUICE_SPMM_INVALID_ARGUMENT = 1, /* the caller's values are wrong */
  SLUICE_SPMM_CORRUPT = 2,          /* encoded bytes contradict themselves or the shape */
  SLUICE_SPMM_OUT_OF_MEMORY = 3,
  SLUICE_SPMM_DEVICE = 4,      /* no device, or it failed */
  SLUICE_SPMM_UNSUPPORTED = 5, /* understood, but not in this build or on this device */
  SLUICE_SPMM_INTERNAL = 6     /* a defect of the library */
} sluice_spmm_status;

/* "ok", "invalid_argument", ...; never null. */
SLUICE_SPMM_API const char* sluice_spmm_status_name(sluice_spmm_status status);
/* What the calling thread's last failed call reported, and the remedy; "" before the first failure. Valid
 * until the thread's next failure. */
SLUICE_SPMM_API const char* sluice_spmm_last_error(void);
/* "0.1.0". */
SLUICE_SPMM_API const char* sluice_spmm_version(void);

typedef enum sluice_spmm_dtype {
  SLUICE_SPMM_F16 = 0,
  SLUICE_SPMM_BF16 = 1,
  SLUICE_SPMM_F32 = 2 /* of the matrix to encode, and of y */
} sluice_spmm_dtype;

/* TILED_CSL, BANK_CSL, BITMAP and PAIRS24 hold every nonzero exactly; the others round. Zeros stay zeros but
 * in the asymmetric int4 formats; a negative zero becomes a zero. */
typedef enum sluice_spmm_format {
  SLUICE_SPMM_TILED_CSL = 1,     /* 4 bytes a nonzero, the simplest to multiply with */
  SLUICE_SPMM_BANK_CSL = 2,      /* about 2.6 bytes a nonzero */
  SLUICE_SPMM_BITMAP = 3,        /* a bit a weight and 2 bytes a nonzero: the smallest exact one */
  SLUICE_SPMM_INT8 = 4,          /* one scale a row */
  SLUICE_SPMM_INT8_G128 = 5,     /* one scale for 128 columns */
  SLUICE_SPMM_INT4_G64 = 6,      /* scale and minimum for 64 columns */
  SLUICE_SPMM_INT4_G128 = 7,     /* the same for 128 */
  SLUICE_SPMM_INT4_SYM_G64 = 8,  /* one scale for 64 columns, around zero */
  SLUICE_SPMM_INT4_SYM_G128 = 9, /* the same for 128 */
  SLUICE_SPMM_BITMAP_INT8 = 10,  /* bitmap with nonzeros of 8 bits */
  SLUICE_SPMM_BITMAP_INT4 = 11,  /* bitmap with nonzeros of 4 bits */
  SLUICE_SPMM_PAIRS24 = 12       /* pairs for sparse tensor cores: larger, the fastest with few tokens */
} sluice_spmm_format;

/* "tiled_csl", ...; null for a number that is no format. */
SLUICE_SPMM_API const char* sluice_spmm_format_name(sluice_spmm_format format);
/* INVALID_ARGUMENT for another name. */
SLUICE_SPMM_API sluice_spmm_status sluice_spmm_parse_format(const char* name, sluice_spmm_format* format);

/* A matrix of output features (rows) by input features (columns), that decodes to fp16 or bf16: any shape of
 * at least 1 x 1, with less than 2^31 rows and columns and at most 2^48 elements. A larger one is refused as
 * INVALID_ARGUMENT; so are tokens and strides whose bytes would wrap around. */
typedef struct sluice_spmm_matrix {
  sluice_spmm_format format;
  sluice_spmm_dtype dtype; /* F16 or BF16 */
  int64_t rows, cols;
} sluice_spmm_matrix;

/* ---- Host memory. ---- */

/* An encoded matrix in memory of the library. */
typedef struct sluice_spmm_encoded sluice_spmm_encoded;

/* Encodes rows * cols dense values of type `source`. The result depends on the values alone, not on `threads`
 * (0: one for each usable CPU). NaN, infinity and what the matrix's type cannot hold are refused with row and
 * column. *encoded is for sluice_spmm_encoded_free. */
SLUICE_SPMM_API sluice_spmm_status sluice_spmm_encode(const sluice_spmm_matrix* matrix,
                                                      sluice_spmm_dtype source, const void* values,
                                                      int threads, sluice_spmm_encoded** encoded);
/* 0 for null. */
SLUICE_SPMM_API size_t sluice_spmm_encoded_bytes(const sluice_spmm_encoded* encoded);
/* Copies exactly that many bytes to host memory of at least `capacity`. */
SLUICE_SPMM_API sluice_spmm_status sluice_spmm_encoded_write(const sluice_spmm_encoded* encoded, void* to,
                                                             size_t capacity);
/* Null is allowed. */
SLUICE_SPMM_API void sluice_spmm_encoded_free(sluice_spmm_encoded* encoded);

/* The fewest and most bytes that a matrix of this shape and format can have; equal for int8 and int4. */
SLUICE_SPMM_API sluice_spmm_status sluice_spmm_byte_range(const sluice_spmm_matrix* matrix, size_t* fewest,
                                                          size_t* most);
/* Whether products may read these bytes, in host memory: everything that is read as a place or a length is in
 * range. Bytes from a file or the network must pass before they go to a device. CORRUPT names the tile. */
SLUICE_SPMM_API sluice_spmm_status sluice_spmm_check(const sluice_spmm_matrix* matrix, const void* encoded,
                                                     size_t bytes);
/* The dense values that the bytes stand for, rows * cols of the matrix's type; checks first. */
SLUICE_SPMM_API sluice_spmm_status sluice_spmm_decode(const sluice_spmm_matrix* matrix, const void* encoded,
                                                      size_t bytes, int threads, void* values);

/* ---- Device memory. ---- */

/* Products on one CUDA stream. */
typedef struct sluice_spmm_context sluice_spmm_context;

/* For `stream` (a cudaStream_t; null is the default stream) of device number `device`. The stream outlives
 * the context, which synchronises with it when freed. No stream is being captured when the context is
 * created, which allocates. A context has 1 MiB of device memory, in which the thread blocks of a product
 * count one another: a CUDA graph captured from its products needs the context to exist, and is launched on
 * this stream, or else neither beside its products nor beside another such graph. UNSUPPORTED in a build
 * without CUDA, DEVICE where there is no device, OUT_OF_MEMORY where it has no memory left. */
SLUICE_SPMM_API sluice_spmm_status sluice_spmm_context_create(int device, void* stream,
                                                              sluice_spmm_context** context);
/* Null is allowed. */
SLUICE_SPMM_API void sluice_spmm_context_free(sluice_spmm_context* context);

/* Scratch for products of `tokens` rows of x, whose rows, and those of y, start at multiples of 16 bytes; 0
 * where none is needed. `weight_bytes` are those of the encoded matrix: how many zeros it has decides what
 * multiplies. */
SLUICE_SPMM_API sluice_spmm_status sluice_spmm_workspace_bytes(const sluice_spmm_context* context,
                                                               const sluice_spmm_matrix* matrix,
                                                               size_t weight_bytes, int64_t tokens,
                                                               size_t* bytes);
/* What multiplies: "tiled_csl_sm90", ..., or "expand+cublaslt", by what was measured on the device. Static.
 */
SLUICE_SPMM_API sluice_spmm_status sluice_spmm_kernel_name(const sluice_spmm_context* context,
                                                           const sluice_spmm_matrix* matrix,
                                                           size_t weight_bytes, int64_t tokens,
                                                           const char** name);

typedef enum sluice_spmm_activation {
  SLUICE_SPMM_NO_ACTIVATION = 0,
  SLUICE_SPMM_RELU = 1,
  SLUICE_SPMM_GELU = 2,
  SLUICE_SPMM_GELU_TANH = 3
} sluice_spmm_activation;

/* Pointers to memory of the context's device. They are not looked into: what the device cannot access,
 * ordinary host memory among it, is an error of the kernel that the stream's next synchronisation reports
 * (cudaErrorIllegalAddress), and after which the process can use the device no more. Strides are distances
 * between rows in elements, 0 for rows without padding. Zero the structure first: fields may be added at its
 * end. */
typedef struct sluice_spmm_product {
  size_t struct_bytes; /* sizeof(sluice_spmm_product) */
  const void* weight;  /* the encoded bytes, 256-byte aligned */
  size_t weight_bytes;
  int64_t tokens; /* rows of x and y; 0: nothing is done */
  const void* x;  /* [tokens, cols] of the matrix's type */
  int64_t x_stride;
  const void* bias; /* [rows] of the matrix's type, or null */
  sluice_spmm_activation activation;
  const void* residual; /* [tokens, rows] of y's type, or null; may be y */
  int64_t residual_stride;
  void* y; /* [tokens, rows]; apart from x */
  int64_t y_stride;
  sluice_spmm_dtype y_dtype; /* the matrix's type, or F32 without residual */
  void* workspace;           /* 256-byte aligned, null if none is needed; one product uses it at a time */
  size_t workspace_bytes;
} sluice_spmm_product;

/* Enqueues the product; sums are fp32. Nothing is copied or synchronised, and nothing allocated but the plan
 * of a shape that is met first. The bytes of the weight are not checked here. */
SLUICE_SPMM_API sluice_spmm_status sluice_spmm_run(sluice_spmm_context* context,
                                                   const sluice_spmm_matrix* matrix,
                                                   const sluice_spmm_product* product);

#ifdef __cplusplus
}
#endif
/* NOLINTEND(readability-identifier-naming) */

#endif
