// The cached rows of one sequence: its lanes, how they grow, share, and are compacted. The only place that moves rows
// or takes and returns pages.
//
// Memory is promised before it is needed (kv_reserve) and then never fails. `allowance` counts the pages that this
// sequence may still take; the pool has promised as many. A lane needs pages_for(peak) pages that are its own, except
// those that it shares and that can never be written again: the whole pages in front of the first row that can move
// (`stable` rows: the first turn's prompt).
#ifndef PITH_CACHE_KV_H
#define PITH_CACHE_KV_H

#include "cache/pool.h"

typedef struct pith_kv {
    pith_page_pool *pool;
    const pith_allocator *alloc;
    pith_lane *lanes;  // (n_layers, G)
    pith_page_id *ids; // (n_layers, G, cap_pages): memory of the lanes' page lists
    pith_table *table; // the backend's copy of them
    uint32_t n_lanes;
    uint32_t cap_pages; // per lane
    uint32_t allowance; // pages that may still be taken
    uint32_t n_held;    // pages with this sequence among their owners
} pith_kv;

// Empty lanes that can hold up to max_rows rows each.
pith_status pith_kv_init(pith_kv *, pith_page_pool *, const pith_allocator *, uint32_t max_rows, pith_error *);
void pith_kv_free(pith_kv *); // pages back, promise back

// Pages that lanes with at most `peak` rows need in all: what admission compares with the pool.
uint64_t pith_kv_pages_for(const pith_geometry *, uint32_t peak);

// Makes sure that every lane can reach `peak` rows, whatever is compacted on the way; rows from `stable` on may move.
// PITH_E_MEMORY, with the numbers of bytes, when the pool cannot promise that; then nothing has changed.
pith_status pith_kv_reserve(pith_kv *, uint32_t peak, uint32_t stable, pith_error *);

// Adds n rows to every lane, contents to be written by the step. Needs the reservation.
void pith_kv_grow(pith_kv *, uint32_t n);

// Adds rows that are there already: ids (n_lanes, n_pages) are whole pages of others, of which the lanes become owners
// too. The lanes hold whole pages, and nothing in front of the added rows' end moves. Pages that were promised for them
// are given up.
void pith_kv_adopt(pith_kv *, const pith_page_id *ids, uint32_t n_pages);

// Drops the rows of every lane from row `n_rows` on; their pages stay allowed.
void pith_kv_truncate(pith_kv *, uint32_t n_rows);

// dst, initialised and empty, becomes a second owner of all pages of src. Both keep or get the allowance to reach
// `peak` rows with pages of their own behind row `stable`. PITH_E_MEMORY as in reserve; then nothing has changed.
pith_status pith_kv_fork(pith_kv *dst, pith_kv *src, uint32_t peak, uint32_t stable, pith_error *);

// Layers [layer, layer + n_layers), as operations around a compression want them.
pith_group pith_kv_group(const pith_kv *, uint32_t layer, uint32_t n_layers, const pith_window *);

// Keeps, of each lane of the group that begins at `layer`, the rows that are no candidates and the surviving ones; no
// candidate lies in front of row `stable`. Pages that are free then are in the pool when this returns.
void pith_kv_compact(pith_kv *, uint32_t layer, uint32_t stable, const pith_scores *);

uint32_t pith_kv_rows(const pith_kv *); // of the longest lane
static inline uint64_t pith_kv_bytes(const pith_kv *kv) { return (uint64_t)kv->n_held * kv->pool->pages.page_bytes; }

#endif
