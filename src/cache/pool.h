// All cache pages of an engine: which are free, owners, and promises.
//
// A page has a count of owners. One with more than one owner is never written, only copied. Pages are taken only
// against a promise made before, so that taking cannot fail: admission promises the worst case of a whole turn.
// Invariant: promised <= number of free pages.
//
// Pages lie in runs of PITH_RUN_PAGES. A lane grows along a run, and begins a new one where it can: so what attention
// reads in one go lies in a row, which processors read ahead in. Where no run is free as a whole, any page does.
#ifndef PITH_CACHE_POOL_H
#define PITH_CACHE_POOL_H

#include "ops/ops.h"

#define PITH_RUN_PAGES 8u // as many rows as a part of attention has (cpu/kernels.h)
#define PITH_NO_PAGE ((pith_page_id)-1)

// A run in one of two lists, or, without a free page, in none.
typedef struct pith_run {
    uint32_t n_free;
    uint32_t next, prev; // runs; PITH_NO_RUN at the ends
} pith_run;
#define PITH_NO_RUN UINT32_MAX

typedef struct pith_page_pool {
    pith_backend *backend;
    const pith_allocator *alloc;
    pith_pages pages;
    uint32_t n_pages;
    uint32_t n_free;
    uint32_t promised;
    uint32_t *owners;       // (n_pages); 0: free
    pith_run *runs;         // (ceil(n_pages / PITH_RUN_PAGES)), of which the last may be shorter
    uint32_t whole, partly; // first runs of the lists; the last freed is taken first, as it is in cache
} pith_page_pool;

pith_status pith_pool_init(pith_page_pool *, pith_backend *, const pith_allocator *, const pith_geometry *,
                           uint32_t n_pages, pith_error *);
void pith_pool_free(pith_page_pool *);

// Promises n pages; false, and nothing promised, when fewer are free and unpromised.
bool pith_pool_promise(pith_page_pool *, uint32_t n);
void pith_pool_release(pith_page_pool *, uint32_t n); // gives a promise back

// One promised page, with one owner: the one behind `after`, the lane's page in front (PITH_NO_PAGE: it has none), if
// that is free and in the same run.
pith_page_id pith_pool_take(pith_page_pool *, pith_page_id after);
void pith_pool_own(pith_page_pool *, pith_page_id);  // one owner more
bool pith_pool_drop(pith_page_pool *, pith_page_id); // one owner less; true when the page became free
static inline bool pith_pool_shared(const pith_page_pool *p, pith_page_id id) { return p->owners[id] > 1; }

#endif
