// Attention of a prefill chunk: the last n rows of one sequence's lanes are the chunk's tokens, each sees the rows up
// to its own. No score matrix: flash attention (Dao, arXiv 2307.08691) over pages.
#ifndef PITH_CUDA_ATTEND_PREFILL_H
#define PITH_CUDA_ATTEND_PREFILL_H

#include "cuda/cache.h"

#ifdef __cplusplus
extern "C" {
#endif

// Once per device and geometry, before the first launch: the shared memory that the kernel may take.
cudaError_t pith_cuda_attend_prefill_init(const pith_geometry *, pith_half type);

// q: device (n, H, d) of the cache's type, unscaled; the n tokens have been appended. seq: device, entry of the lane
// tables. out: device (n, H*d) of out_type. The bits of a token's result do not depend on where the chunk begins or
// ends.
cudaError_t pith_cuda_attend_prefill(const pith_cuda_cache *, uint32_t layer, const uint16_t *q, const int32_t *seq,
                                     uint32_t n, uint16_t *out, pith_half out_type, cudaStream_t);

#ifdef __cplusplus
}
#endif
#endif
