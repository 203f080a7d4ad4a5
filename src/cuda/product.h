// Products of a decode step: y (n, M) = x (n, K) W^T + bias for n = 1..64 tokens, built against the bandwidth of device
// memory: W is read once, whatever n is. Packed weights see activations that are rounded to 8 bits in blocks of 32
// (quant.cuh).
//
// A token's sum has one order, which depends on the type and on the matrices of the launch: the same bits alone and
// among 63 others, at any place, on any device.
//
// A launch allocates nothing and waits for nothing, and may be captured into a graph; pointers and n are then fixed.
#ifndef PITH_CUDA_PRODUCT_H
#define PITH_CUDA_PRODUCT_H

#include "cuda/chain.h"
#include "cuda/quant.h"

#include <cuda_runtime_api.h>

#define PITH_CUDA_PRODUCT_MAX_TOKENS 64u
#define PITH_CUDA_PRODUCT_MAX_MATRICES 3u

// What becomes of a sum (with its bias).
typedef enum pith_cuda_out {
    PITH_CUDA_OUT_F32,   // y (n, M) f32 = sum
    PITH_CUDA_OUT_ADD,   // y (n, M) f32 += sum: of many rows alone (gemm.h)
    PITH_CUDA_OUT_PARTS, // y (pith_cuda_product_parts(), n, M) f32: the sums of runs of k, bias in the first. Matrices
                         // of few rows keep a whole card busy only when several blocks share a row; who reads the sum
                         // next adds the parts up in their order (append.h, norm.h)
    PITH_CUDA_OUT_16,    // y (n, M) in x's type: what the next product reads
    PITH_CUDA_OUT_SWIGLU // y (n, M) in x's type = silu(gate) * up
} pith_cuda_out;

typedef struct pith_cuda_matrix {
    const void *w;     // (M, K) bf16 or f16 on 16 bytes, or packed (quant.h)
    const float *bias; // (M) or NULL
    void *y;           // (n, y_stride)
    uint32_t m;
    uint32_t y_stride;  // elements from one token to the next, at least m
    size_t part_stride; // PARTS: elements from one part to the next
} pith_cuda_matrix;

// Up to three matrices of one type that multiply the same x, in one launch. SWIGLU has one output, matrix[0].y: bf16
// and f16 take matrix[0] as gate and matrix[1] as up, with the same m; the packed types one matrix, packed as a pair,
// with m rows of each and no bias.
typedef struct pith_cuda_product {
    pith_cuda_type type;
    pith_cuda_out out;
    const void *x; // (n, K) f16 if the type is F16, else bf16; on 16 bytes
    uint32_t n, k; // 1..64; k a multiple of 32, for K types of 256
    uint32_t n_matrices;
    pith_cuda_matrix matrix[PITH_CUDA_PRODUCT_MAX_MATRICES];
    pith_cuda_follow follow; // a kernel that starts early reads its first weights before it waits for x
} pith_cuda_product;

#ifdef __cplusplus
extern "C" {
#endif

// How many parts such a launch has with PITH_CUDA_OUT_PARTS: 1 to PITH_CUDA_MOST_PARTS. Reads the type, k, and the
// matrices' m.
#define PITH_CUDA_MOST_PARTS 8u
uint32_t pith_cuda_product_parts(const pith_cuda_product *);

// cudaErrorInvalidValue for a shape outside the above, cudaErrorMisalignedAddress for w or x off 16 bytes; else what
// the launch says.
cudaError_t pith_cuda_product_launch(const pith_cuda_product *, cudaStream_t);

// Fails where this build has no code for the calling thread's device. All kernels are built for the same ones.
cudaError_t pith_cuda_product_built(void);

#ifdef __cplusplus
}
#endif

#endif
