// The work around a compression on the CPU: candidates, attention mass of the window, aggregation, pooling, top-k.
// See ops.h for what each does; these are the bodies, split so that a recorder can run them on its threads.
#ifndef PITH_CPU_EVENTS_H
#define PITH_CPU_EVENTS_H

#include "cpu/kernels.h"
#include "ops/ops.h"

// Physical rows of one lane whose position lies in no span, less the last n_tail of these; returns their number.
// Spans ascend and are disjoint. rows: room for exactly the number returned is enough.
uint32_t pith_candidates_lane(const pith_pages *, const pith_lane *, const pith_span *protect, uint32_t n_protect,
                              uint32_t n_tail, uint32_t *rows);

// score (g, n): the attention mass of the window over one lane's candidates, for the g query heads of its KV head
// `kv_head`. q: (cap, H, d). `scratch`: pith_mass_scratch() floats.
// F32: logits are (q * (1/sqrt(d))).k, softmax over the candidates in f32, added in the order of the slots.
// BF16, as PyTorch on bf16 tensors: q and k rounded, their dot product summed in f32 and rounded, divided by sqrt(d)
// and rounded; softmax in f32, each weight rounded; the sum over slots in f32, rounded.
void pith_mass_lane(const pith_cpu_kernels *, const pith_pages *, const pith_lane *, uint32_t kv_head, const float *q,
                    const uint32_t *slots, uint32_t n_slots, const uint32_t *rows, uint32_t n, pith_arith, float *score,
                    float *scratch);
size_t pith_mass_scratch(const pith_geometry *, uint32_t n, uint32_t n_slots); // in floats

// In place: (H, n) -> (1, n) or (G, n). Sums run over heads in ascending order; BF16 rounds the means.
void pith_aggregate_scores(const pith_geometry *, pith_aggregate, pith_arith, uint32_t n, float *score);

// In place on (n_sets, n), width odd; scratch: n floats. Sums run in ascending order; BF16 rounds the means.
void pith_pool_scores(pith_pool, uint32_t width, pith_arith, uint32_t n_sets, uint32_t n, float *score, float *scratch);

// keep: k indices, ascending, of the k <= n largest of score (n); ties to the lower index; 0 and -0 are equal; NaN
// counts as the smallest. scratch: n uint32_t. Linear time.
void pith_top_scores(const float *score, uint32_t n, uint32_t k, uint32_t *keep, uint32_t *scratch);

#endif
