// Attention of a few query rows over one lane, straight from its pages: softmax over the rows in the order of their
// pages, with a running maximum (Milakov and Gimelshein, arXiv 1805.02867), cut into parts that merge in a fixed order.
//
// The bits of a query row's result depend on the row and on what it sees, not on the other rows of the call. So a page
// is softened and weighed over exactly the rows that the query row sees, never over more of them with weight 0: 0 * V
// is not nothing when V overflowed to infinity, or when the sum is -0.
#include <stdbool.h>
#include <string.h>

#include "cpu/kernels_isa.h"

size_t pith_attend_scratch(uint32_t n_q) { return (size_t)n_q * (PITH_PAGE_ROWS + 1); }

static const uint8_t *k_of_row(const pith_pages *pages, const pith_lane *lane, uint32_t row) {
    return pith_page_at(pages, lane->pages[row / PITH_PAGE_ROWS]);
}

// How many rows of the page that begins at lane row `first` are among the lane's first n_seen.
static uint32_t visible_in_page(uint32_t first, uint32_t n_seen) {
    if (n_seen <= first) return 0;
    return n_seen - first < PITH_PAGE_ROWS ? n_seen - first : PITH_PAGE_ROWS;
}

// The front of what is to be read soon: as many lines as a sum has terms, for a kernel to fetch.
static const void *take_lines(pith_stream *soon, uint32_t n) {
    const size_t bytes = (size_t)n * 64;
    if (!soon || soon->bytes < bytes) return NULL;
    const uint8_t *at = soon->at;
    soon->at += bytes, soon->bytes -= bytes;
    return at;
}

// Takes the page at lane row `first` into the running state. Memory is fetched one section ahead of its use: the
// page's values while its keys are scored, `next_k` while its values are summed up.
static void attend_page(const pith_cpu_kernels *kernels, const pith_pages *pages, const pith_lane *lane, uint32_t first,
                        const void *next_k, const float *q, size_t stride, uint32_t n_q, const uint32_t *n_seen,
                        pith_partial out, float *scratch, pith_stream *soon) {
    const uint32_t d = pages->geo.head_dim, elt_bytes = pages->geo.elt_bytes;
    const void *k = k_of_row(pages, lane, first), *v = pith_page_v(pages, lane->pages[first / PITH_PAGE_ROWS]);
    float *s = scratch, *c = scratch + (size_t)n_q * PITH_PAGE_ROWS; // (n_q, 64), (n_q)

    kernels->scores(q, stride, n_q, k, elt_bytes, d, (pith_ahead){v, take_lines(soon, d)}, s);
    // Runs of query rows that see equally much of the page are softened together and share a pass over its values.
    for (uint32_t a = 0, end; a < n_q; a = end) {
        const uint32_t n_visible = visible_in_page(first, n_seen[a]);
        for (end = a + 1; end < n_q && visible_in_page(first, n_seen[end]) == n_visible;) end++;
        if (n_visible == 0) continue;
        kernels->soften(s + (size_t)a * PITH_PAGE_ROWS, end - a, n_visible, out.m + a, out.l + a, c + a);
        kernels->weigh(out.acc + (size_t)a * d, c + a, s + (size_t)a * PITH_PAGE_ROWS, end - a, v, elt_bytes, d,
                       n_visible, (pith_ahead){next_k, take_lines(soon, n_visible)});
        next_k = NULL;
    }
}

void pith_attend_part(const pith_cpu_kernels *kernels, const pith_pages *pages, const pith_lane *lane, uint32_t part,
                      const float *q, size_t stride, uint32_t n_q, const uint32_t *n_seen, pith_partial out,
                      float *scratch, const void *next_k, pith_stream *soon) {
    const uint32_t begin = part * PITH_PART_ROWS;
    uint32_t n_rows = begin;
    for (uint32_t a = 0; a < n_q; a++) {
        out.m[a] = -__builtin_inff(), out.l[a] = 0.0f;
        if (n_seen[a] > n_rows) n_rows = n_seen[a];
    }
    const uint32_t end = n_rows - begin > PITH_PART_ROWS ? begin + PITH_PART_ROWS : n_rows;
    memset(out.acc, 0, (size_t)n_q * pages->geo.head_dim * sizeof(float));

    for (uint32_t first = begin; first < end; first += PITH_PAGE_ROWS) {
        const bool last = end - first <= PITH_PAGE_ROWS;
        attend_page(kernels, pages, lane, first, last ? next_k : k_of_row(pages, lane, first + PITH_PAGE_ROWS), q,
                    stride, n_q, n_seen, out, scratch, soon);
    }
}

const void *pith_attend_keys(const pith_pages *pages, const pith_lane *lane, uint32_t part) {
    return k_of_row(pages, lane, part * PITH_PART_ROWS);
}

void pith_attend_fetch(const pith_pages *pages, const void *keys) { pith_fetch(keys, pith_page_k_bytes(&pages->geo)); }

// Rows [0, n) of a and b, at most MERGE_ROWS.
enum { MERGE_ROWS = 8 };
static void merge_rows(const pith_cpu_kernels *kernels, uint32_t n, uint32_t d, pith_partial a, pith_partial b) {
    float m[MERGE_ROWS], c[MERGE_ROWS][2];
    for (uint32_t i = 0; i < n; i++) {
        m[i] = a.m[i] > b.m[i] ? a.m[i] : b.m[i];
        const float shift = pith_soft_shift(m[i]);
        c[i][0] = a.m[i] - shift, c[i][1] = b.m[i] - shift;
    }
    kernels->exp_sum(c[0], 2 * n, 0.0f); // one call: a chain of dependent operations for all
    for (uint32_t i = 0; i < n; i++) {
        float *x = a.acc + (size_t)i * d;
        const float *y = b.acc + (size_t)i * d;
        // l is 0 for the empty part only: the largest score weighs 1, and a NaN score makes it NaN.
        if (b.l[i] == 0.0f) continue;
        if (a.l[i] == 0.0f) {
            memcpy(x, y, d * sizeof(float));
            a.m[i] = b.m[i], a.l[i] = b.l[i];
            continue;
        }
        // y as the values of a page with one row: x = fma(c[1], y, x * c[0]).
        kernels->weigh(x, &c[i][0], &c[i][1], 1, y, sizeof(float), d, 1, (pith_ahead){0});
        a.l[i] = __builtin_fmaf(b.l[i], c[i][1], a.l[i] * c[i][0]);
        a.m[i] = m[i];
    }
}

void pith_attend_merge(const pith_cpu_kernels *kernels, uint32_t n_q, uint32_t d, pith_partial a, pith_partial b) {
    for (uint32_t i = 0; i < n_q; i += MERGE_ROWS) {
        const uint32_t n = n_q - i < MERGE_ROWS ? n_q - i : MERGE_ROWS;
        merge_rows(kernels, n, d, (pith_partial){a.acc + (size_t)i * d, a.m + i, a.l + i},
                   (pith_partial){b.acc + (size_t)i * d, b.m + i, b.l + i});
    }
}

void pith_attend_finish(uint32_t n_q, uint32_t d, pith_partial a, float *out, size_t stride) {
    for (uint32_t i = 0; i < n_q; i++)
        for (uint32_t j = 0; j < d; j++)
            out[i * stride + j] = a.l[i] == 0.0f ? 0.0f : a.acc[(size_t)i * d + j] / a.l[i];
}
