#include "cache/pool.h"

#include "base/mem.h"

static uint32_t n_runs(const pith_page_pool *p) {
    return p->n_pages / PITH_RUN_PAGES + (p->n_pages % PITH_RUN_PAGES != 0);
}

static uint32_t run_pages(const pith_page_pool *p, uint32_t run) {
    const uint32_t left = p->n_pages - run * PITH_RUN_PAGES;
    return left < PITH_RUN_PAGES ? left : PITH_RUN_PAGES;
}

// The list that a run with free pages is in.
static uint32_t *list_of(pith_page_pool *p, uint32_t run) {
    return p->runs[run].n_free == run_pages(p, run) ? &p->whole : &p->partly;
}

static void enlist(pith_page_pool *p, uint32_t run) {
    uint32_t *first = list_of(p, run);
    p->runs[run].prev = PITH_NO_RUN, p->runs[run].next = *first;
    if (*first != PITH_NO_RUN) p->runs[*first].prev = run;
    *first = run;
}

static void delist(pith_page_pool *p, uint32_t run) {
    const pith_run *r = &p->runs[run];
    if (r->next != PITH_NO_RUN) p->runs[r->next].prev = r->prev;
    if (r->prev != PITH_NO_RUN) p->runs[r->prev].next = r->next;
    else *list_of(p, run) = r->next;
}

// One of the run's pages is taken (by -1) or free again (by 1).
static void count(pith_page_pool *p, uint32_t run, int by) {
    pith_run *r = &p->runs[run];
    if (r->n_free) delist(p, run);
    r->n_free += (uint32_t)by, p->n_free += (uint32_t)by;
    if (r->n_free) enlist(p, run);
}

pith_status pith_pool_init(pith_page_pool *p, pith_backend *backend, const pith_allocator *alloc,
                           const pith_geometry *geo, uint32_t n_pages, pith_error *err) {
    *p = (pith_page_pool){.backend = backend, .alloc = alloc, .n_pages = n_pages, .n_free = n_pages};
    p->whole = p->partly = PITH_NO_RUN;
    pith_status status = backend->ops->pool_create(backend, geo, n_pages, &p->pages, err);
    if (status != PITH_OK) return *p = (pith_page_pool){0}, status;
    p->owners = pith_new(alloc, n_pages, sizeof *p->owners);
    p->runs = pith_new(alloc, n_runs(p), sizeof *p->runs);
    if (!p->owners || !p->runs) {
        pith_pool_free(p);
        return pith_fail(err, PITH_E_MEMORY, "no memory for the table of %u pages", n_pages);
    }
    for (uint32_t run = n_runs(p); run-- > 0;) { // low ids first
        p->runs[run].n_free = run_pages(p, run);
        enlist(p, run);
    }
    return PITH_OK;
}

void pith_pool_free(pith_page_pool *p) {
    if (!p->backend) return;
    p->backend->ops->pool_destroy(p->backend, &p->pages, p->n_pages);
    pith_delete(p->alloc, p->owners, p->n_pages, sizeof *p->owners);
    pith_delete(p->alloc, p->runs, n_runs(p), sizeof *p->runs);
    *p = (pith_page_pool){0};
}

bool pith_pool_promise(pith_page_pool *p, uint32_t n) {
    if (p->n_free - p->promised < n) return false;
    p->promised += n;
    return true;
}

void pith_pool_release(pith_page_pool *p, uint32_t n) { p->promised -= n; }

pith_page_id pith_pool_take(pith_page_pool *p, pith_page_id after) {
    pith_page_id id = after + 1; // of PITH_NO_PAGE 0, which begins a run
    if (id % PITH_RUN_PAGES == 0 || id >= p->n_pages || p->owners[id] > 0) {
        id = (p->whole != PITH_NO_RUN ? p->whole : p->partly) * PITH_RUN_PAGES;
        while (p->owners[id] > 0) id++;
    }
    p->promised--;
    count(p, id / PITH_RUN_PAGES, -1);
    p->owners[id] = 1;
    return id;
}

void pith_pool_own(pith_page_pool *p, pith_page_id id) { p->owners[id]++; }

bool pith_pool_drop(pith_page_pool *p, pith_page_id id) {
    if (--p->owners[id] > 0) return false;
    count(p, id / PITH_RUN_PAGES, 1);
    return true;
}
