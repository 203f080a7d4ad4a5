// RMS norm of the residual, rounded once to what the next product reads.
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

// y = x / sqrt(mean(x^2) + eps) * w. x (n, d) f32, w (d) f32, y (n, d) bf16, or f16 if `f16`. d is a multiple of 4, at
// most 16384; x, w and y on 16 bytes. A row's sum has one order, whatever n is.
cudaError_t pith_cuda_norm_launch(const float *x, const float *w, float eps, uint32_t n, uint32_t d, bool f16, void *y,
                                  pith_cuda_follow, cudaStream_t);

#ifdef __cplusplus
}
#endif

#endif
