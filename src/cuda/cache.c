// Pages, page lists and query windows in device memory.
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "cuda/device.h"
#include "cuda/lanes.h"

// ------------------------------------------------------------------------------------------------------- pages

static pith_status pool_create(pith_backend *backend, const pith_geometry *geo, uint32_t n, pith_pages *out,
                               pith_error *err) {
    pith_cuda *cuda = pith_cuda_enter(backend);
    const size_t page_bytes = pith_page_bytes(geo);
    uint8_t *base = pith_cuda_new(cuda, n * page_bytes, "the cache", err);
    if (!base) return PITH_E_MEMORY;
    *out = (pith_pages){.base = base, .page_bytes = page_bytes, .geo = *geo};
    cuda->cache.base = base, cuda->cache.page_bytes = page_bytes;
    return PITH_OK;
}

static void pool_destroy(pith_backend *backend, pith_pages *pages, uint32_t n) {
    (void)n;
    cudaFree(pages->base); // waits for the kernels that use it
    *pages = (pith_pages){0};
    pith_cuda_enter(backend)->cache.base = NULL;
}

static void page_copy(pith_backend *backend, const pith_pages *pages, pith_page_id dst, pith_page_id src) {
    pith_cuda *cuda = pith_cuda_enter(backend);
    PITH_CUDA_DO(cuda, cudaMemcpyAsync(pith_page_at(pages, dst), pith_page_at(pages, src), pages->page_bytes,
                                       cudaMemcpyDeviceToDevice, cuda->stream));
}

// -------------------------------------------------------------------------------------------------------- lists

static size_t n_entries(const pith_cuda *cuda) { return (size_t)cuda->max_sequences * pith_n_lanes(&cuda->geo); }

pith_status pith_cuda_begin_cache(pith_cuda *cuda, pith_error *err) {
    cuda->cap_pages = pith_pages_for(cuda->max_rows);
    const size_t n = n_entries(cuda) * cuda->cap_pages;
    if (n > INT32_MAX)
        return pith_fail(err, PITH_E_MEMORY, "cuda:%d: page lists of %zu entries, expected %d at most", cuda->device, n,
                         INT32_MAX);
    cuda->slot_taken = pith_new(cuda->alloc, cuda->max_sequences, sizeof *cuda->slot_taken);
    cuda->host_lists = pith_new(cuda->alloc, n, sizeof *cuda->host_lists);
    cuda->updates = pith_new(cuda->alloc, UPDATES, sizeof *cuda->updates);
    if (!cuda->slot_taken || !cuda->host_lists || !cuda->updates)
        return pith_fail(err, PITH_E_MEMORY, "no memory for page lists");
    if (!(cuda->lists = pith_cuda_new(cuda, n * sizeof *cuda->lists, "page lists", err)) ||
        !(cuda->first = pith_cuda_new(cuda, n_entries(cuda) * sizeof *cuda->first, "page lists", err)))
        return PITH_E_MEMORY;
    PITH_CUDA_DO(cuda, pith_cuda_lists_begin(cuda->first, (uint32_t)n_entries(cuda), cuda->cap_pages, cuda->stream));
    cuda->cache = (pith_cuda_cache){.geo = cuda->geo,
                                    .type = cuda->type,
                                    .pages = (const int32_t *)cuda->lists,
                                    .first = cuda->first};
    return cuda->base.ops->check(&cuda->base, err);
}

void pith_cuda_free_cache(pith_cuda *cuda) {
    cudaFree(cuda->lists);
    cudaFree(cuda->first);
    pith_delete(cuda->alloc, cuda->host_lists, n_entries(cuda) * cuda->cap_pages, sizeof *cuda->host_lists);
    pith_delete(cuda->alloc, cuda->slot_taken, cuda->max_sequences, sizeof *cuda->slot_taken);
    pith_delete(cuda->alloc, cuda->updates, UPDATES, sizeof *cuda->updates);
}

static pith_status table_create(pith_backend *backend, const pith_geometry *geo, uint32_t cap_pages, pith_table **out,
                                pith_error *err) {
    (void)geo, (void)cap_pages; // no more than the backend's own
    pith_cuda *cuda = pith_cuda_enter(backend);
    *out = NULL;
    uint32_t slot = 0;
    while (slot < cuda->max_sequences && cuda->slot_taken[slot]) slot++; // low ones first: fewer row counts to copy
    if (slot == cuda->max_sequences) return pith_fail(err, PITH_E_STATE, "all %u sequences are in use", slot);
    pith_table *table = pith_new(cuda->alloc, 1, sizeof *table);
    if (!table) return pith_fail(err, PITH_E_MEMORY, "no memory for a sequence");
    *table = (pith_table){.cuda = cuda, .slot = slot};
    cuda->slot_taken[slot] = true;
    *out = table;
    return PITH_OK;
}

static void table_destroy(pith_backend *backend, pith_table *table) {
    if (!table) return;
    pith_cuda *cuda = pith_cuda_enter(backend);
    cuda->slot_taken[table->slot] = false;
    pith_delete(cuda->alloc, table, 1, sizeof *table);
}

static void table_set(pith_table *table, uint32_t lane, uint32_t at, pith_page_id id) {
    pith_cuda *cuda = table->cuda;
    const uint32_t i = (table->slot * pith_n_lanes(&cuda->geo) + lane) * cuda->cap_pages + at;
    cuda->host_lists[i] = id;
    if (cuda->n_updates == UPDATES) pith_cuda_flush_updates(cuda);
    cuda->updates[cuda->n_updates++].at = i;
}

// An entry that was set twice is sent twice with the same, newest id: their order does not matter.
void pith_cuda_flush_updates(pith_cuda *cuda) {
    const uint32_t n = cuda->n_updates;
    if (n == 0) return;
    for (uint32_t i = 0; i < n; i++) cuda->updates[i].id = cuda->host_lists[cuda->updates[i].at];
    cuda->n_updates = 0;
    const void *sent = pith_cuda_send(cuda, cuda->updates, n * sizeof *cuda->updates);
    PITH_CUDA_DO(cuda, pith_cuda_lists_update(cuda->lists, sent, n, cuda->stream));
}

// ------------------------------------------------------------------------------------------------------ windows

static pith_status window_create(pith_backend *backend, const pith_geometry *geo, uint32_t cap, pith_window *out,
                                 pith_error *err) {
    *out = (pith_window){0};
    if (cap == 0) return PITH_OK;
    pith_cuda *cuda = pith_cuda_enter(backend);
    const size_t bytes = pith_cuda_window_floats(geo, cap) * sizeof(float);
    if (!(out->q = pith_cuda_new(cuda, bytes, "the queries of a sequence", err))) return PITH_E_MEMORY;
    out->cap = cap;
    PITH_CUDA_DO(cuda, cudaMemsetAsync(out->q, 0, bytes, cuda->stream));
    return backend->ops->check(backend, err);
}

static void window_destroy(pith_backend *backend, const pith_geometry *geo, pith_window *w) {
    (void)backend, (void)geo;
    cudaFree(w->q);
    *w = (pith_window){0};
}

static void window_copy(pith_backend *backend, const pith_geometry *geo, const pith_window *dst,
                        const pith_window *src) {
    pith_cuda *cuda = pith_cuda_enter(backend);
    if (src->cap == 0) return;
    PITH_CUDA_DO(cuda, cudaMemcpyAsync(dst->q, src->q, pith_cuda_window_floats(geo, src->cap) * sizeof(float),
                                       cudaMemcpyDeviceToDevice, cuda->stream));
}

void pith_cuda_table_cache(pith_ops *ops) {
    ops->pool_create = pool_create;
    ops->pool_destroy = pool_destroy;
    ops->page_copy = page_copy;
    ops->table_create = table_create;
    ops->table_destroy = table_destroy;
    ops->table_set = table_set;
    ops->window_create = window_create;
    ops->window_destroy = window_destroy;
    ops->window_copy = window_copy;
}
