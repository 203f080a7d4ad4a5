// All cache pages of an engine: free list, owners, and promises.
//
// A page has a count of owners. One with more than one owner is never written, only copied. Pages are taken only
// against a promise made before, so that taking cannot fail: admission promises the worst case of a whole turn.
// Invariant: promised <= number of free pages.
#ifndef PITH_CACHE_POOL_H
#define PITH_CACHE_POOL_H

#include "ops/ops.h"

typedef struct pith_page_pool {
    pith_backend *backend;
    const pith_allocator *alloc;
    pith_pages pages;
    uint32_t n_pages;
    uint32_t n_free;
    uint32_t promised;
    uint32_t *owners;   // (n_pages)
    pith_page_id *free; // (n_pages), the first n_free are free; the last freed is taken first, as it is in cache
} pith_page_pool;

pith_status pith_pool_init(pith_page_pool *, pith_backend *, const pith_allocator *, const pith_geometry *,
                           uint32_t n_pages, pith_error *);
void pith_pool_free(pith_page_pool *);

// Promises n pages; false, and nothing promised, when fewer are free and unpromised.
bool pith_pool_promise(pith_page_pool *, uint32_t n);
void pith_pool_release(pith_page_pool *, uint32_t n); // gives a promise back

pith_page_id pith_pool_take(pith_page_pool *);       // one promised page, with one owner
void pith_pool_own(pith_page_pool *, pith_page_id);  // one owner more
bool pith_pool_drop(pith_page_pool *, pith_page_id); // one owner less; true when the page became free
static inline bool pith_pool_shared(const pith_page_pool *p, pith_page_id id) { return p->owners[id] > 1; }

#endif
