// Page geometry: how large a page is and where a row lies in it. Every size and offset of cache memory in the project
// comes from here.
//
// A page holds PITH_PAGE_ROWS rows of one KV head:
//
//     K  (d, 64)   keys, transposed: element i of row r at [i*64 + r], so that scoring a page needs no horizontal sums
//     V  (64, d)   values: element i of row r at [r*d + i]
//     P  (64)      int32 logical positions of the rows
//
// K and V in the cache's element type. Rows past a lane's end inside its last page hold garbage, never read into a
// result: kernels compute on whole pages and mask.
//
// This header is shared with CUDA sources: valid C and C++.
#ifndef PITH_OPS_PAGE_H
#define PITH_OPS_PAGE_H

#include <stddef.h>
#include <stdint.h>

#define PITH_PAGE_ROWS 64u
#define PITH_PAGE_ALIGN 64u // bytes; every page and every section inside one starts on it

typedef struct pith_geometry {
    uint32_t n_layers;
    uint32_t n_heads;    // query heads
    uint32_t n_kv_heads; // n_heads is a multiple of it
    uint32_t head_dim;   // d, a multiple of 8, at most PITH_MAX_HEAD_DIM
    uint32_t elt_bytes;  // 2: f16, 4: f32
} pith_geometry;

#define PITH_MAX_HEAD_DIM 256u

static inline size_t pith_page_align(size_t bytes) {
    return (bytes + PITH_PAGE_ALIGN - 1) / PITH_PAGE_ALIGN * PITH_PAGE_ALIGN;
}
static inline size_t pith_page_k_bytes(const pith_geometry *g) {
    return pith_page_align((size_t)PITH_PAGE_ROWS * g->head_dim * g->elt_bytes);
}
static inline size_t pith_page_v_offset(const pith_geometry *g) { return pith_page_k_bytes(g); }
static inline size_t pith_page_pos_offset(const pith_geometry *g) { return 2 * pith_page_k_bytes(g); }
static inline size_t pith_page_bytes(const pith_geometry *g) {
    return pith_page_pos_offset(g) + pith_page_align(PITH_PAGE_ROWS * sizeof(int32_t));
}
// K, V and position of one row of one lane, without padding: what a token costs.
static inline size_t pith_row_bytes(const pith_geometry *g) {
    return (size_t)2 * g->head_dim * g->elt_bytes + sizeof(int32_t);
}

// Element indices inside the K and V sections.
static inline size_t pith_k_index(const pith_geometry *g, uint32_t row_in_page, uint32_t i) {
    (void)g;
    return (size_t)i * PITH_PAGE_ROWS + row_in_page;
}
static inline size_t pith_v_index(const pith_geometry *g, uint32_t row_in_page, uint32_t i) {
    return (size_t)row_in_page * g->head_dim + i;
}

static inline uint32_t pith_pages_for(uint32_t n_rows) {
    return n_rows / PITH_PAGE_ROWS + (n_rows % PITH_PAGE_ROWS != 0);
}
static inline uint32_t pith_n_lanes(const pith_geometry *g) { return g->n_layers * g->n_kv_heads; }
static inline uint32_t pith_lane_index(const pith_geometry *g, uint32_t layer, uint32_t kv_head) {
    return layer * g->n_kv_heads + kv_head;
}

typedef uint32_t pith_page_id; // index into the pool

// The cached rows of one (sequence, layer, KV head). Row r lies in page pages[r / 64] at r % 64.
typedef struct pith_lane {
    pith_page_id *pages; // (cap_pages), the first pith_pages_for(n_rows) are valid
    uint32_t cap_pages;
    uint32_t n_rows;
} pith_lane;

// The memory behind page ids.
typedef struct pith_pages {
    uint8_t *base; // page `id` starts at base + id * page_bytes
    size_t page_bytes;
    pith_geometry geo;
} pith_pages;

static inline uint8_t *pith_page_at(const pith_pages *p, pith_page_id id) {
    return p->base + (size_t)id * p->page_bytes;
}
static inline uint8_t *pith_page_v(const pith_pages *p, pith_page_id id) {
    return pith_page_at(p, id) + pith_page_v_offset(&p->geo);
}
static inline int32_t *pith_page_pos(const pith_pages *p, pith_page_id id) {
    return (int32_t *)(void *)(pith_page_at(p, id) + pith_page_pos_offset(&p->geo));
}
static inline int32_t *pith_lane_pos(const pith_pages *p, const pith_lane *lane, uint32_t row) {
    return pith_page_pos(p, lane->pages[row / PITH_PAGE_ROWS]) + row % PITH_PAGE_ROWS;
}

#endif
