// Small kernels about page lists.
#ifndef PITH_CUDA_LANES_H
#define PITH_CUDA_LANES_H

#include "cuda/cache.h"

#ifdef __cplusplus
extern "C" {
#endif

// pages[updates[i].at] = updates[i].id, i < n, no index twice. All device memory; updates (n, 2) words.
cudaError_t pith_cuda_lists_update(uint32_t *pages, const void *updates, uint32_t n, cudaStream_t);

// first[i] = i * cap_pages for i < n.
cudaError_t pith_cuda_lists_begin(int32_t *first, uint32_t n, uint32_t cap_pages, cudaStream_t);

// out (n_rows): the logical positions of the rows of one lane, an entry of the cache's tables.
cudaError_t pith_cuda_positions(const pith_cuda_cache *, uint32_t entry, uint32_t n_rows, int32_t *out, cudaStream_t);

#ifdef __cplusplus
}
#endif
#endif
