/* A sparse matrix of 2048 x 4096, 80 % zeros: encoded, decoded, and, on a CUDA device, multiplied by 16 rows of x.
 *   spmm_example [FORMAT]          tiled_csl by default
 * Exit status: 0 if all is right, 1 if not, 77 if there was no device to multiply on. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sluice/spmm.h>

enum { kRows = 2048, kCols = 4096, kTokens = 16 };

static void check(sluice_spmm_status status, const char* call) {
  if (status == SLUICE_SPMM_OK) return;
  fprintf(stderr, "%s: %s: %s\n", call, sluice_spmm_status_name(status), sluice_spmm_last_error());
  exit(1);
}
#define CHECK(call) check((call), #call)

/* Whole numbers from -8 to 8, which fp16 holds, and so do sums of their products in fp32. */
static float weight_at(size_t i) {
  unsigned hash = (unsigned)i * 2654435761u;
  hash ^= hash >> 15;
  hash *= 2246822519u;
  hash ^= hash >> 13;
  return hash % 10 < 8 ? 0.0f : (float)(int)(hash / 10 % 17) - 8.0f;
}
static float x_at(size_t i) { return (float)((int)(i % 5) - 2); }

/* Small whole numbers as fp16. */
static uint16_t to_half(float value) {
  if (value == 0) return 0;
  int exponent;
  const float mantissa = frexpf(fabsf(value), &exponent); /* 0.5 <= mantissa < 1 */
  const unsigned bits = ((unsigned)(exponent + 14) << 10) + (unsigned)((mantissa * 2 - 1) * 1024);
  return (uint16_t)(bits | (value < 0 ? 0x8000u : 0));
}

static int multiply(const sluice_spmm_matrix* matrix, const void* encoded, size_t bytes, const uint16_t* decoded);

int main(int argc, char** argv) {
  sluice_spmm_matrix matrix = {SLUICE_SPMM_TILED_CSL, SLUICE_SPMM_F16, kRows, kCols};
  if (argc > 1) CHECK(sluice_spmm_parse_format(argv[1], &matrix.format));

  /* 1. Encode; the bytes may as well come from a file. */
  const size_t count = (size_t)kRows * kCols;
  float* dense = malloc(count * sizeof(float));
  uint16_t* decoded = malloc(count * sizeof(uint16_t));
  if (dense == NULL || decoded == NULL) return 1;
  for (size_t i = 0; i < count; ++i) dense[i] = weight_at(i);
  sluice_spmm_encoded* encoded = NULL;
  CHECK(sluice_spmm_encode(&matrix, SLUICE_SPMM_F32, dense, /*threads=*/0, &encoded));
  const size_t bytes = sluice_spmm_encoded_bytes(encoded);
  void* stored = malloc(bytes);
  if (stored == NULL) return 1;
  CHECK(sluice_spmm_encoded_write(encoded, stored, bytes));
  sluice_spmm_encoded_free(encoded);
  printf("libsluice_spmm %s: %d x %d in %s, %.3f bytes a weight\n", sluice_spmm_version(), kRows, kCols,
         sluice_spmm_format_name(matrix.format), (double)bytes / (double)count);

  /* 2. Back again. */
  CHECK(sluice_spmm_check(&matrix, stored, bytes));
  CHECK(sluice_spmm_decode(&matrix, stored, bytes, /*threads=*/0, decoded));
  const int exact = matrix.format == SLUICE_SPMM_TILED_CSL || matrix.format == SLUICE_SPMM_BANK_CSL ||
                    matrix.format == SLUICE_SPMM_BITMAP || matrix.format == SLUICE_SPMM_PAIRS24;
  for (size_t i = 0; exact && i < count; ++i) {
    if (decoded[i] == to_half(dense[i])) continue;
    fprintf(stderr, "element %zu decodes to %#x\n", i, (unsigned)decoded[i]);
    return 1;
  }

  /* 3. Multiply. */
  const int status = multiply(&matrix, stored, bytes, decoded);
  free(stored);
  free(decoded);
  free(dense);
  return status;
}

#if WITH_CUDA
#include <cuda_runtime_api.h>

static void check_cuda(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  fprintf(stderr, "%s: %s\n", call, cudaGetErrorString(error));
  exit(1);
}
#define CHECK_CUDA(call) check_cuda((call), #call)

static double of_half(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const double mantissa = exponent == 0 ? ldexp(bits & 1023, -24) : ldexp(1024 + (bits & 1023), exponent - 25);
  return bits & 0x8000 ? -mantissa : mantissa;
}

static int multiply(const sluice_spmm_matrix* matrix, const void* encoded, size_t bytes, const uint16_t* decoded) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    printf("no CUDA device here: nothing was multiplied\n");
    return 77;
  }
  cudaStream_t stream;
  CHECK_CUDA(cudaStreamCreate(&stream));
  sluice_spmm_context* context = NULL;
  CHECK(sluice_spmm_context_create(0, stream, &context));

  uint16_t* x = malloc(sizeof(uint16_t) * kTokens * kCols);
  float* y = malloc(sizeof(float) * kTokens * kRows);
  if (x == NULL || y == NULL) return 1;
  for (size_t i = 0; i < (size_t)kTokens * kCols; ++i) x[i] = to_half(x_at(i));

  sluice_spmm_product product;
  memset(&product, 0, sizeof(product));
  product.struct_bytes = sizeof(product);
  product.tokens = kTokens;
  product.y_dtype = SLUICE_SPMM_F32;
  CHECK(sluice_spmm_workspace_bytes(context, matrix, bytes, kTokens, &product.workspace_bytes));
  product.weight_bytes = bytes;
  void *weight_d, *x_d, *y_d;
  CHECK_CUDA(cudaMalloc(&weight_d, bytes));
  CHECK_CUDA(cudaMalloc(&x_d, sizeof(uint16_t) * kTokens * kCols));
  CHECK_CUDA(cudaMalloc(&y_d, sizeof(float) * kTokens * kRows));
  CHECK_CUDA(cudaMalloc(&product.workspace, product.workspace_bytes + 1));
  CHECK_CUDA(cudaMemcpyAsync(weight_d, encoded, bytes, cudaMemcpyHostToDevice, stream));
  CHECK_CUDA(cudaMemcpyAsync(x_d, x, sizeof(uint16_t) * kTokens * kCols, cudaMemcpyHostToDevice, stream));
  product.weight = weight_d;
  product.x = x_d;
  product.y = y_d;
  CHECK(sluice_spmm_run(context, matrix, &product));
  CHECK_CUDA(cudaMemcpyAsync(y, y_d, sizeof(float) * kTokens * kRows, cudaMemcpyDeviceToHost, stream));
  CHECK_CUDA(cudaStreamSynchronize(stream));

  /* Against the decoded matrix, which a format that rounds has rounded. */
  double worst = 0;
  for (size_t n = 0; n < kTokens; ++n) {
    for (size_t m = 0; m < kRows; ++m) {
      double sum = 0;
      double magnitude = 0;
      for (size_t k = 0; k < kCols; ++k) {
        const double term = of_half(x[n * kCols + k]) * of_half(decoded[m * kCols + k]);
        sum += term;
        magnitude += fabs(term);
      }
      const double error = fabs(y[n * kRows + m] - sum) / (magnitude > 0 ? magnitude : 1);
      if (isnan(error)) worst = INFINITY;
      if (error > worst) worst = error;
    }
  }
  const char* name = NULL;
  CHECK(sluice_spmm_kernel_name(context, matrix, bytes, kTokens, &name));
  printf("%d rows by %s: the worst error is %.1e of the sum of magnitudes\n", kTokens, name, worst);

  sluice_spmm_context_free(context);
  CHECK_CUDA(cudaFree(weight_d));
  CHECK_CUDA(cudaFree(x_d));
  CHECK_CUDA(cudaFree(y_d));
  CHECK_CUDA(cudaFree(product.workspace));
  CHECK_CUDA(cudaStreamDestroy(stream));
  free(x);
  free(y);
  /* Tensor cores add up 16 products at a time and lose at most 2^-23 of the sum each time. */
  return worst <= kCols / 16 * 0x1p-23 ? 0 : 1;
}
#else
static int multiply(const sluice_spmm_matrix* matrix, const void* encoded, size_t bytes, const uint16_t* decoded) {
  (void)matrix, (void)encoded, (void)bytes, (void)decoded, (void)x_at;
  sluice_spmm_context* context = NULL;
  const sluice_spmm_status status = sluice_spmm_context_create(0, NULL, &context);
  if (status != SLUICE_SPMM_UNSUPPORTED || context != NULL) return 1;
  printf("nothing was multiplied: %s\n", sluice_spmm_last_error());
  return 77;
}
#endif
