// Surviving rows move down, in place.
#ifndef PITH_CUDA_COMPACT_H
#define PITH_CUDA_COMPACT_H

#include "cuda/events.h"

#ifdef __cplusplus
extern "C" {
#endif

// The rows that survive from each lane's first candidate on: all that are no candidates, and the chosen ones,
// ascending. candidates (n_layers, G, S), S >= 1; keep (n_layers, n_sets, k), n_sets 1 or G, ascending indices into a
// lane's candidates. survivors (n_layers, G, room): n_rows - first - (S - k) of each lane, first being candidates[0];
// room of the longest.
cudaError_t pith_cuda_survivors(const pith_cuda_cache *, const pith_cuda_event *, const uint32_t *candidates,
                                uint32_t n_sets, const uint32_t *keep, uint32_t k, uint32_t *survivors, uint32_t room,
                                cudaStream_t);

// Row survivors[i] of each lane moves to row candidates[0] + i. Rows in front stay. Neither the page lists nor n_rows
// change here; every page from the first candidate's on must have one owner, this sequence.
cudaError_t pith_cuda_compact_layers(const pith_cuda_cache *, const pith_cuda_event *, const uint32_t *candidates,
                                     uint32_t k, const uint32_t *survivors, uint32_t room, cudaStream_t);

// The same for one lane, as ops.h has it: row rows[i] moves to row first + i, i < n, with rows ascending and
// rows[i] >= first + i. pages: device, the lane's page ids. rows: device (n).
cudaError_t pith_cuda_compact(const pith_cuda_cache *, const int32_t *pages, uint32_t first, const uint32_t *rows,
                              uint32_t n, cudaStream_t);

#ifdef __cplusplus
}
#endif
#endif
