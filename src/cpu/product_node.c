// Products of decode steps: nodes whose tasks are ranges of weight rows.
#include "cpu/claim.h"

enum {
    LEAST_ROWS = 32,         // weight rows of a claim: tens of kilobytes, much more than a claim costs
    AHEAD_BYTES = 128 << 10, // a fraction of the L2, and about what memory delivers between two products
};

// Rows of a thread's first range: half of an even share.
static int64_t first_rows(int64_t m, int nth) { return m / (2 * nth) / PITH_PRODUCT_ROW_STEP * PITH_PRODUCT_ROW_STEP; }

// The next range of weight rows for this thread; *r1 is 0 before its first call. The first range of a thread is its own
// place in the matrix, where fetch_ahead has begun to read for it. The others are claimed.
static bool next_rows(pith_node *node, int ith, int nth, int64_t *r0, int64_t *r1) {
    const int64_t first = first_rows(node->m, nth);
    if (*r1 == 0 && first > 0) {
        *r0 = ith * first, *r1 = *r0 + first;
        return true;
    }
    if (!claim_range(node, nth, node->m - first * nth, PITH_PRODUCT_ROW_STEP, LEAST_ROWS, r0, r1)) return false;
    *r0 += first * nth, *r1 += first * nth;
    return true;
}

pith_stream pith_cpu_first_bytes(const pith_node *product, int ith, int nth, size_t most) {
    const int64_t n_rows = first_rows(product->m, nth), row = ith * n_rows;
    const pith_joint *j = &product->joint[product->n_joint - 1];
    while (row < j->first) j--;
    const int64_t at = row - j->first, left = j->matrix.m - at;
    const size_t part = (size_t)(left < n_rows ? left : n_rows) * j->matrix.row_bytes;
    return (pith_stream){j->matrix.data + (size_t)at * j->matrix.row_bytes, part < most ? part : most};
}

// Between two products come a barrier and, in a batch, a node that packs and reads next to nothing: a thread that has
// no more rows starts to read its first rows of the next weights.
static void fetch_ahead(const pith_node *product, int ith, int nth) {
    if (!product) return;
    const pith_stream ahead = pith_cpu_first_bytes(product, ith, nth, AHEAD_BYTES);
    for (size_t i = 0; i < ahead.bytes; i += 64) __builtin_prefetch(ahead.at + i, 0, 2);
}

// Rows [r0, r1) of one product, for all columns. residual: (n, M), added to them, or NULL.
static void product_rows(const pith_node *node, const pith_joint *j, const uint8_t *packed, int64_t r0, int64_t r1,
                         const float *residual, float *y) {
    const pith_matrix *w = &j->matrix;
    const size_t m = (size_t)w->m;
    for (uint32_t c = 0; c < node->n; c += PITH_PRODUCT_MAX_COLUMNS) {
        const uint32_t cols = node->n - c < PITH_PRODUCT_MAX_COLUMNS ? node->n - c : PITH_PRODUCT_MAX_COLUMNS;
        w->product->rows(w->product, w->data, w->row_bytes, w->k, packed + c * node->packed_bytes, cols, r0, r1,
                         y + c * m, m);
    }
    for (uint32_t c = 0; c < node->n && j->bias; c++)
        for (int64_t r = r0; r < r1; r++) y[c * m + (size_t)r] += j->bias[r];
    for (uint32_t c = 0; c < node->n && residual; c++)
        for (int64_t r = r0; r < r1; r++) y[c * m + (size_t)r] += residual[c * m + (size_t)r];
}

// dst: (n, M) for each of the products, one behind the other, from src 0: packed rows, or what the node packs, then
// with src 1; weights (M, K). SRC_RESIDUAL: what is added, or none.
void pith_node_product(struct ggml_tensor *dst, int ith, int nth, void *userdata) {
    pith_node *node = userdata;
    const uint8_t *packed =
        node->pack ? pith_cpu_pack_own(node->pack, dst->src[0], dst->src[1], ith) : pith_align64(dst->src[0]->data);
    const float *residual = dst->src[SRC_RESIDUAL] ? dst->src[SRC_RESIDUAL]->data : NULL;
    float *y = node->to_step ? node->plan->step->logits : dst->data;

    for (int64_t r0 = 0, r1 = 0; next_rows(node, ith, nth, &r0, &r1);)
        for (const pith_joint *j = node->joint; j < node->joint + node->n_joint; j++) {
            const int64_t from = r0 > j->first ? r0 - j->first : 0, to = r1 - j->first;
            const int64_t end = to < j->matrix.m ? to : j->matrix.m;
            if (from < end) product_rows(node, j, packed, from, end, residual, y + j->y);
        }
    fetch_ahead(node->then, ith, nth);
}
