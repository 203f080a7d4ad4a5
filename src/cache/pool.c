#include "cache/pool.h"

#include "base/mem.h"

pith_status pith_pool_init(pith_page_pool *p, pith_backend *backend, const pith_allocator *alloc,
                           const pith_geometry *geo, uint32_t n_pages, pith_error *err) {
    *p = (pith_page_pool){.backend = backend, .alloc = alloc, .n_pages = n_pages, .n_free = n_pages};
    pith_status status = backend->ops->pool_create(backend, geo, n_pages, &p->pages, err);
    if (status != PITH_OK) return *p = (pith_page_pool){0}, status;
    p->owners = pith_new(alloc, n_pages, sizeof *p->owners);
    p->free = pith_new(alloc, n_pages, sizeof *p->free);
    if (!p->owners || !p->free) {
        pith_pool_free(p);
        return pith_fail(err, PITH_E_MEMORY, "no memory for the table of %u pages", n_pages);
    }
    for (uint32_t i = 0; i < n_pages; i++) p->free[i] = n_pages - 1 - i; // low ids first
    return PITH_OK;
}

void pith_pool_free(pith_page_pool *p) {
    if (!p->backend) return;
    p->backend->ops->pool_destroy(p->backend, &p->pages, p->n_pages);
    pith_delete(p->alloc, p->owners, p->n_pages, sizeof *p->owners);
    pith_delete(p->alloc, p->free, p->n_pages, sizeof *p->free);
    *p = (pith_page_pool){0};
}

bool pith_pool_promise(pith_page_pool *p, uint32_t n) {
    if (p->n_free - p->promised < n) return false;
    p->promised += n;
    return true;
}

void pith_pool_release(pith_page_pool *p, uint32_t n) { p->promised -= n; }

pith_page_id pith_pool_take(pith_page_pool *p) {
    p->promised--;
    pith_page_id id = p->free[--p->n_free];
    p->owners[id] = 1;
    return id;
}

void pith_pool_own(pith_page_pool *p, pith_page_id id) { p->owners[id]++; }

bool pith_pool_drop(pith_page_pool *p, pith_page_id id) {
    if (--p->owners[id] > 0) return false;
    p->free[p->n_free++] = id;
    return true;
}
