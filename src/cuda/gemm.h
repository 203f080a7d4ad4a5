// Products of many rows (prefill chunks, n > 64): cuBLASLt on bf16 or f16, and packed weights made bf16 a slab at a
// time.
//
// A gemm object holds a cuBLASLt handle and one algorithm per shape. It is made and prepared at set-up; a launch
// allocates nothing and waits for nothing. One object per thread that launches.
#ifndef PITH_CUDA_GEMM_H
#define PITH_CUDA_GEMM_H

#include "cuda/product.h"

#include <cuda_runtime_api.h>

#define PITH_CUDA_GEMM_MAX_SHAPES 64u

typedef struct pith_cuda_gemm pith_cuda_gemm;

// y (n, m) = or += x (n, k) w (m, k)^T, all strides tight but y's.
typedef struct pith_cuda_gemm_shape {
    uint32_t m, k, n, y_stride;
    bool f16;          // x and w f16, else bf16
    pith_cuda_out out; // F32, ADD or 16
} pith_cuda_gemm_shape;

#ifdef __cplusplus
extern "C" {
#endif

// cudaErrorMemoryAllocation, or cudaErrorNotSupported when cuBLASLt is not there (blas.h says where it is looked for)
// or does not start.
cudaError_t pith_cuda_gemm_create(pith_cuda_gemm **out);
void pith_cuda_gemm_free(pith_cuda_gemm *);

// Chooses the algorithm of a shape, for up to workspace_bytes of scratch; a shape that is known already is kept.
// cudaErrorInvalidValue when PITH_CUDA_GEMM_MAX_SHAPES are known or cuBLASLt has no algorithm.
cudaError_t pith_cuda_gemm_prepare(pith_cuda_gemm *, const pith_cuda_gemm_shape *, size_t workspace_bytes);

// Only for prepared shapes (cudaErrorInvalidValue). workspace: the bytes that were prepared for, on 256.
cudaError_t pith_cuda_gemm_launch(const pith_cuda_gemm *, const pith_cuda_gemm_shape *, const void *w, const void *x,
                                  void *y, void *workspace, cudaStream_t);

// Rows [row0, row0 + n_rows) of a packed (m, k) matrix as bf16: y (n_rows, k). row0 is a multiple of 64; rows past m
// are not written. For a matrix packed as a pair give twice the rows, padded to 64: they come out 32 and 32.
cudaError_t pith_cuda_dequant_launch(pith_cuda_type, const void *packed, uint32_t m, uint32_t k, uint32_t row0,
                                     uint32_t n_rows, void *y, cudaStream_t);

// After products of many rows. y (n, y_stride) f32 += bias (m), in place.
cudaError_t pith_cuda_bias_launch(float *y, const float *bias, uint32_t n, uint32_t m, uint32_t y_stride, cudaStream_t);
// y (n, f) bf16 or f16 = silu(gate) * up. gate and up f32, element (token, i) at token * stride + i; with `pair`, at
// token * stride + i / 32 * 64 + i % 32, as the rows of a pair come.
cudaError_t pith_cuda_swiglu_launch(const float *gate, const float *up, uint32_t n, uint32_t f, uint32_t stride,
                                    bool pair, bool f16, void *y, cudaStream_t);

#ifdef __cplusplus
}
#endif

#endif
