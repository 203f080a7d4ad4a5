// A token from each sequence's logits, on the device: the definition is cpu/sample.c's and ops.h's pith_draw.
#ifndef PITH_CUDA_SAMPLE_H
#define PITH_CUDA_SAMPLE_H

#include <cuda_runtime_api.h>

#include "ops/ops.h"

#define PITH_CUDA_SAMPLE_MAX_VOCAB (1u << 18)

#ifdef __cplusplus
extern "C" {
#endif

// Scratch of a launch, device memory. Contents need no preparation.
size_t pith_cuda_sample_scratch(uint32_t n, uint32_t n_vocab);

// logits: device (n, V), V <= PITH_CUDA_SAMPLE_MAX_VOCAB. draws: device (n), read at each launch. ids: device (n).
// host_ids: pinned host memory mapped into the device's address space (n), or NULL. live: device (n) entries below 0
// are padding and get no token, or NULL. The token of a sequence depends on its own logits and draw alone. A chain of
// its own (chain.h), which begins after all that is in the stream.
cudaError_t pith_cuda_sample(const float *logits, uint32_t n, uint32_t n_vocab, const pith_draw *draws,
                             const int32_t *live, void *scratch, int32_t *ids, int32_t *host_ids, cudaStream_t);

#ifdef __cplusplus
}
#endif
#endif
