// Attention of a decode step: one query token of each sequence against the rows of its lanes, straight from pages.
//
// Rows are cut into chunks whose length follows from the lane's own row count alone; the chunks of all lanes are the
// work items that the warps of a grid of fixed size take one after another, so long and short sequences balance, and a
// captured graph keeps its parameters while the cache grows. Each leaves a part, and a second kernel merges a lane's
// parts in an order that their number fixes. So the bits of a token's result depend on its own query and lanes, not on
// the batch.
#ifndef PITH_CUDA_ATTEND_DECODE_H
#define PITH_CUDA_ATTEND_DECODE_H

#include "cuda/cache.h"
#include "cuda/chain.h"

#ifdef __cplusplus
extern "C" {
#endif

// Items of one layer for n tokens, none of whose lanes has more than max_rows rows.
uint32_t pith_cuda_attend_items(const pith_geometry *, uint32_t n, uint32_t max_rows);

// Bytes of the plan of all layers, and of the parts of one layer (layers run one after another and share them).
// A counter among the parts must be zeroed once, by pith_cuda_attend_reset, when the memory is made; launches leave it
// zero.
size_t pith_cuda_attend_plan_bytes(const pith_geometry *, uint32_t cap_items);
size_t pith_cuda_attend_parts_bytes(const pith_geometry *, uint32_t cap_items);
cudaError_t pith_cuda_attend_reset(void *parts, cudaStream_t);

// Once per step, after the lanes have grown and before the first layer: lists the items of every layer. seq: device
// (n), entries of the lane tables, -1 is padding. More items than cap_items are dropped: size it by
// pith_cuda_attend_items.
cudaError_t pith_cuda_attend_plan(const pith_cuda_cache *, const int32_t *seq, uint32_t n, void *plan,
                                  uint32_t cap_items, cudaStream_t);

// q: device (n, H, d) of the cache's type, unscaled. out: device (n, H*d) of `out_type`; padding tokens are not
// written. n * G is cap_items at most, else cudaErrorInvalidValue. n_blocks: how many blocks the device holds at once,
// from pith_cuda_attend_blocks; any number gives the same bits. Of what is read, a chain (chain.h) may make q and the
// newest row of each lane.
cudaError_t pith_cuda_attend_decode(const pith_cuda_cache *, uint32_t layer, const uint16_t *q, uint32_t n, void *plan,
                                    void *parts, uint32_t cap_items, uint32_t n_blocks, uint16_t *out,
                                    pith_half out_type, pith_cuda_follow, cudaStream_t);
cudaError_t pith_cuda_attend_blocks(const pith_geometry *, pith_half type, uint32_t *n_blocks);

#ifdef __cplusplus
}
#endif
#endif
