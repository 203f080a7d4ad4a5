// What a compression computes before rows move: candidates, mass, aggregation, pooling, the best ones (ops.h has the
// definitions), for several layers of one sequence in one launch each. The layers of a compression do not depend on one
// another, and one layer alone cannot fill the device.
//
// The number S of candidates per lane is known on the host. All pointers are device memory unless said otherwise.
#ifndef PITH_CUDA_EVENTS_H
#define PITH_CUDA_EVENTS_H

#include "cuda/cache.h"
#include "ops/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

// Layers [layer0, layer0 + n_layers) of the sequence at entry `seq` of the lane tables.
typedef struct pith_cuda_event {
    uint32_t seq, layer0, n_layers;
    uint32_t n; // candidates per lane, S
} pith_cuda_event;

// rows (n_layers, G, S): ascending, the rows whose position is in no span of protect (n_protect), less the last n_tail;
// S is what remains of them. counts (n_layers, G) or NULL: how many remain by the device's count, for a policy that
// does not know; then S is the room in `rows`, and only what fits is written.
cudaError_t pith_cuda_candidates(const pith_cuda_cache *, const pith_cuda_event *, const pith_span *protect,
                                 uint32_t n_protect, uint32_t n_tail, uint32_t *rows, uint32_t *counts, cudaStream_t);

// score (n_layers, H, S). window: (model's layers, cap, H, d) of this sequence; slots: (n_slots). scratch:
// pith_cuda_mass_scratch bytes; call for fewer layers at a time when that is too much.
//
// F32: queries are rounded to the cache's type, as attention multiplies them (append.h's q_out); products are summed in
// f32. Where nothing is left to rounding (queries that the type has, dot products that f32 has, weights relative to the
// largest that are 0 and 1), scores of as many equal weights as a power of two are the CPU's bit for bit. BF16: as
// ops.h has it.
size_t pith_cuda_mass_scratch(const pith_geometry *, uint32_t n_layers, uint32_t n, uint32_t n_slots);
cudaError_t pith_cuda_mass(const pith_cuda_cache *, const pith_cuda_event *, const float *window, uint32_t cap,
                           const uint32_t *slots, uint32_t n_slots, pith_arith, const uint32_t *rows, void *scratch,
                           float *score, cudaStream_t);

// in (n_layers, H, S) -> out (n_layers, n_sets, S), n_sets 1 for LAYER, else G. Not in place.
cudaError_t pith_cuda_aggregate(const pith_geometry *, const pith_cuda_event *, pith_aggregate, pith_arith,
                                const float *in, float *out, cudaStream_t);

// in (n_layers, n_sets, S) -> out, same shape. Not in place. NONE copies.
cudaError_t pith_cuda_pool(const pith_cuda_event *, uint32_t n_sets, pith_pool, uint32_t width, pith_arith,
                           const float *in, float *out, cudaStream_t);

// score (n_layers, n_sets, S) -> keep (n_layers, n_sets, k): the k <= S best of each set, ties to the lower row,
// ascending.
cudaError_t pith_cuda_top(const pith_cuda_event *, uint32_t n_sets, const float *score, uint32_t k, uint32_t *keep,
                          cudaStream_t);

#ifdef __cplusplus
}
#endif
#endif
