// Our own kernels for what touches the cache, one table per instruction set level, chosen at run time.
//
// Every level gives the same bits. That is possible because the arithmetic is fixed here, not left to the vector
// width: a score is one fused multiply-add per element of the head in ascending order, starting at 0; a weighted sum
// of values is one fused multiply-add per row in ascending order; exp is the polynomial of kernels_isa.h in fused
// operations; a sum of exponentials is 16 partial sums (index mod 16, ascending) and then a fixed tree. Two things are
// left out: which NaN a NaN is, and threads that changed the rounding mode or flush subnormals (ours do not).
//
// Pages are whole: kernels read all 64 rows of a page's keys, so the garbage past a lane's end must not reach a result
// (not even as NaN times 0).
#ifndef PITH_CPU_KERNELS_H
#define PITH_CPU_KERNELS_H

#include "ops/page.h"

// scores, soften and weigh take one page after the other into the running softmax of query rows. Per page and row:
// m' = max(m, max of the page's visible scores); c = exp(m - m'); p_r = exp(s_r - m'); l = fma(l, c, sum p_r);
// acc[i] = acc[i] * c, then one fma(p_r, V[r][i]) per visible row. As long as all scores were -inf, every p is 0; NaN
// among the scores makes l NaN.
//
// `ahead`: what is to be fetched into the caches meanwhile.
typedef struct pith_ahead {
    const void *section; // as large as the section that is read; or NULL
    const void *lines;   // as many 64-byte lines as there are terms in a sum: d of scores, n_rows of weigh; or NULL
} pith_ahead;

typedef struct pith_cpu_kernels {
    const char *name; // "avx512", "avx2", "neon", "portable"

    // s[a][r] = sum_i q[a][i] * K[i][r] for all 64 rows r. q: n_q rows of d floats, `stride` floats apart;
    // s: (n_q, 64). `k`: the page's K section in f16 (elt_bytes 2) or f32.
    void (*scores)(const float *q, size_t stride, uint32_t n_q, const void *k, uint32_t elt_bytes, uint32_t d,
                   pith_ahead ahead, float *s);

    // Takes one page of scores (already scaled) into the running softmax of n_q query rows: the first n_visible of the
    // 64 rows, 1..64, count. On return s (n_q, 64) holds p (0 for rows that do not count), m and l (n_q) are updated,
    // and c (n_q) holds the factors by which acc must be multiplied. m starts at -INFINITY, l at 0.
    void (*soften)(float *s, uint32_t n_q, uint32_t n_visible, float *m, float *l, float *c);

    // acc[a][i] = acc[a][i] * c[a], then += p[a][r] * V[r][i] for r ascending in [0, n_rows). acc: (n_q, d);
    // c: (n_q); p: (n_q, 64); `v`: the page's V section, of which rows from n_rows on are not read.
    void (*weigh)(float *acc, const float *c, const float *p, uint32_t n_q, const void *v, uint32_t elt_bytes,
                  uint32_t d, uint32_t n_rows, pith_ahead ahead);

    // exp(x[i] - shift) into x for n entries, their sum as return value: partial sums by i mod 16, ascending.
    float (*exp_sum)(float *x, uint32_t n, float shift);

    // y[i] = gate[i] / (1 + exp(-gate[i])) * up[i] for n entries; y may be one of the others.
    void (*swiglu)(const float *gate, const float *up, uint32_t n, float *y);

    // f32 -> f16, to nearest even. Out-of-range values become infinities.
    void (*to_f16)(const float *x, uint16_t *y, uint32_t n);
} pith_cpu_kernels;

// The best level that the CPU has and `disabled` does not forbid: a comma-separated list of level names, the value of
// PITH_DISABLE_CPU, may be NULL. "portable" cannot be forbidden. Asks the CPU every time: keep the answer.
const pith_cpu_kernels *pith_cpu_kernels_choose(const char *disabled);

// All levels compiled in and runnable here, best first; returns their number (at most 4). For tests.
size_t pith_cpu_kernels_all(const pith_cpu_kernels *out[4]);

// ------------------------------------------------------------------- attention, append and events over pages
// These compose the kernels; all are pure functions of their arguments and may run on any thread.

// Lanes are cut into parts of this many rows, which are softened separately and merged in ascending order. A constant
// of the arithmetic: changing it changes bits.
#define PITH_PART_ROWS 512u

// Running state of n_q query rows: acc (n_q, d), m (n_q), l (n_q).
typedef struct pith_partial {
    float *acc, *m, *l;
} pith_partial;

// Memory that somebody will read soon. What computes in the meantime takes pieces from its front and fetches them.
typedef struct pith_stream {
    const uint8_t *at;
    size_t bytes;
} pith_stream;

// Softens part `part` (rows [part*512, ...)) of a lane for n_q query rows into `out`. Query row a sees the lane's rows
// [0, n_seen[a]), in any order of a, at most lane->n_rows; a row that sees nothing of the part gets m = -INFINITY,
// l = 0, acc = 0. q: n_q rows, `stride` floats apart, already multiplied by 1/sqrt(d) (exact when d is a power of 4,
// else one more rounding). Pages that no query row sees are not read. The bits of a query row's result do not depend
// on the other rows of the call. `scratch`: pith_attend_scratch(n_q) floats. `next_k`: keys that the thread reads
// behind this part, which are fetched meanwhile (pith_attend_keys); NULL, as `soon` may be: none.
void pith_attend_part(const pith_cpu_kernels *, const pith_pages *, const pith_lane *, uint32_t part, const float *q,
                      size_t stride, uint32_t n_q, const uint32_t *n_seen, pith_partial out, float *scratch,
                      const void *next_k, pith_stream *soon);
size_t pith_attend_scratch(uint32_t n_q); // in floats

// The first keys of a part that the lane has; and asks for them, a page, where no part before it did.
const void *pith_attend_keys(const pith_pages *, const pith_lane *, uint32_t part);
void pith_attend_fetch(const pith_pages *, const void *keys);

// Merges `b` into `a`: m' = max, c_a = exp(m_a - m'), c_b = exp(m_b - m'); l and acc become fma(b, c_b, a * c_a).
// Either may be empty (l = 0), which leaves the bits of the other as they are.
void pith_attend_merge(const pith_cpu_kernels *, uint32_t n_q, uint32_t d, pith_partial a, pith_partial b);

// out[a] = acc[a] / l[a], 0 for a row that saw nothing; rows of out `stride` floats apart.
void pith_attend_finish(uint32_t n_q, uint32_t d, pith_partial a, float *out, size_t stride);

// Writes one token's k (d) and v (d), rounded to the cache's type, and its position into row `row` of a lane whose page
// is exclusively owned.
void pith_append_row(const pith_cpu_kernels *, const pith_pages *, const pith_lane *, uint32_t row, const float *k,
                     const float *v, int32_t pos);

// Moves row rows[i] of the lane to row first + i, i < n, in place. rows ascending, rows[i] >= first + i. All pages that
// a row moves to are exclusively owned.
void pith_compact_rows(const pith_pages *, const pith_lane *, uint32_t first, const uint32_t *rows, uint32_t n);
// ops.h compact for one lane: of the n >= 1 candidates, rows in ascending order, those with the ascending indices keep
// (n_keep) survive. scratch: (n_rows).
void pith_compact_lane(const pith_pages *, const pith_lane *, const uint32_t *candidates, uint32_t n,
                       const uint32_t *keep, uint32_t n_keep, uint32_t *scratch);

#endif
