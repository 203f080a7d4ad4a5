// The residual: what the product before has for it (product.h), in parts, is added to it, and its RMS norm is rounded
// once to what the next product reads.
//
// A kernel of its own: as a prologue of the product every block would read the whole residual again, D n floats for
// each of some 230 blocks, 51 MB out of L2 for 16 tokens of 3584, which is twice the weights of the product it would
// precede. Launched in a chain (chain.h), the product after it reads its weights while this runs.
#ifndef PITH_CUDA_NORM_H
#define PITH_CUDA_NORM_H

#include <stdbool.h>
#include <stdint.h>

#include <cuda_runtime_api.h>

#include "cuda/chain.h"

#ifdef __cplusplus
extern "C" {
#endif

// x += parts, in their order; y = x / sqrt(mean(x^2) + eps) * w. A row's sums have one order, whatever n is.
typedef struct pith_cuda_norm {
    float *x;            // (n, d), written only if there are parts
    const float *parts;  // (n_parts, n, d)
    size_t part_stride;  // floats from a part to the next
    uint32_t n_parts;    // 0 to PITH_CUDA_MOST_PARTS (product.h)
    const float *weight; // (d)
    float eps;
    void *y; // (n, d) bf16, or f16 if `f16`
    bool f16;
    uint32_t n, d; // d: a multiple of 4, at most 16384
} pith_cuda_norm;
// cudaErrorInvalidValue for another d or too many parts, cudaErrorMisalignedAddress for pointers off 16 bytes.
cudaError_t pith_cuda_norm_launch(const pith_cuda_norm *, pith_cuda_follow, cudaStream_t);

#ifdef __cplusplus
}
#endif

#endif
