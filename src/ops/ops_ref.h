// What the operations around the cache must compute, in double and as plainly as possible: the oracle of the tests.
// Rows are dense arrays here; nothing knows of pages, lanes or vectors. Shapes are (slowest, ..., fastest).
#ifndef PITH_OPS_REF_H
#define PITH_OPS_REF_H

#include "ops/ops.h"

// out (d): softmax of q.k/sqrt(d) over the n rows, times v. q (d), k (n, d), v (n, d), as the cache holds them.
void pith_ref_attend(const float *q, const float *k, const float *v, uint32_t n, uint32_t d, double *out);

// score (n): the sum over the n_q queries of the softmax over the n rows of q.k/sqrt(d). q (n_q, d), k (n, d).
// BF16: rounded to bf16 are q, k, the dot product, its quotient by sqrt(d), the softmax weight and the sum.
void pith_ref_mass(const float *q, uint32_t n_q, const float *k, uint32_t n, uint32_t d, pith_arith, double *score);

// in (n_heads, n) -> out (n_sets, n): n_sets 1 for LAYER, n_kv_heads for GROUP and HEAD.
void pith_ref_aggregate(const double *in, uint32_t n_heads, uint32_t n_kv_heads, uint32_t n, pith_aggregate, pith_arith,
                        double *out);

// in (n) -> out (n).
void pith_ref_pool(const double *in, uint32_t n, pith_pool, uint32_t width, pith_arith, double *out);

// keep (k): the indices of the k largest of score (n), ascending; ties to the lower index, NaN last. O(n * k).
void pith_ref_top(const float *score, uint32_t n, uint32_t k, uint32_t *keep);

// x rounded to bf16's 8 significant bits, to nearest even; for |x| in bf16's normal range, and 0.
double pith_ref_bf16(double x);

#endif
