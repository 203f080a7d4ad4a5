#include "cache/kv.h"

#include "base/mem.h"

pith_status pith_kv_init(pith_kv *kv, pith_page_pool *pool, const pith_allocator *alloc, uint32_t max_rows,
                         pith_error *err) {
    const pith_geometry *geo = &pool->pages.geo;
    *kv = (pith_kv){.pool = pool, .alloc = alloc, .n_lanes = pith_n_lanes(geo), .cap_pages = pith_pages_for(max_rows)};
    // No lane ever has more pages than the pool.
    if (kv->cap_pages > pool->n_pages) kv->cap_pages = pool->n_pages;
    kv->lanes = pith_new(alloc, kv->n_lanes, sizeof *kv->lanes);
    kv->ids = pith_new(alloc, (size_t)kv->n_lanes * kv->cap_pages, sizeof *kv->ids);
    pith_status status = !kv->lanes || !kv->ids
                             ? pith_fail(err, PITH_E_MEMORY, "no memory for the page lists of a sequence")
                             : pool->backend->ops->table_create(pool->backend, geo, kv->cap_pages, &kv->table, err);
    if (status != PITH_OK) {
        pith_kv_free(kv);
        return status;
    }
    for (uint32_t i = 0; i < kv->n_lanes; i++)
        kv->lanes[i] = (pith_lane){.pages = kv->ids + (size_t)i * kv->cap_pages, .cap_pages = kv->cap_pages};
    return PITH_OK;
}

// ------------------------------------------------------------------------------------------ one lane's pages

// The only writer of page lists: the backend's table follows.
static void put_page(pith_kv *kv, pith_lane *lane, uint32_t at, pith_page_id id) {
    lane->pages[at] = id;
    kv->pool->backend->ops->table_set(kv->table, (uint32_t)(lane - kv->lanes), at, id);
}

// Every page taken lowers promise and allowance alike, every page given back raises both: what a compaction frees, the
// sequence may need again before its turn ends.
static pith_page_id take(pith_kv *kv, const pith_lane *lane, uint32_t at) {
    kv->allowance--;
    kv->n_held++;
    return pith_pool_take(kv->pool, at > 0 ? lane->pages[at - 1] : PITH_NO_PAGE);
}

// A page that others still own frees no memory, so it raises no allowance: the sequence had the right to a page of its
// own in its place from the start.
static void give_back(pith_kv *kv, pith_page_id id) {
    kv->n_held--;
    if (!pith_pool_drop(kv->pool, id)) return;
    kv->allowance++;
    kv->pool->promised++;
}

static void shrink(pith_kv *kv, pith_lane *lane, uint32_t n_rows) {
    for (uint32_t p = pith_pages_for(lane->n_rows); p > pith_pages_for(n_rows);) give_back(kv, lane->pages[--p]);
    lane->n_rows = n_rows;
}

// Before a write: a page with other owners is replaced by a copy.
static void make_own(pith_kv *kv, pith_lane *lane, uint32_t page) {
    pith_page_id old = lane->pages[page];
    if (!pith_pool_shared(kv->pool, old)) return;
    pith_page_id own = take(kv, lane, page);
    kv->pool->backend->ops->page_copy(kv->pool->backend, &kv->pool->pages, own, old);
    put_page(kv, lane, page, own);
    give_back(kv, old);
}

void pith_kv_free(pith_kv *kv) {
    if (!kv->pool) return;
    if (kv->lanes) pith_kv_truncate(kv, 0);
    kv->pool->backend->ops->table_destroy(kv->pool->backend, kv->table);
    pith_pool_release(kv->pool, kv->allowance);
    pith_delete(kv->alloc, kv->ids, (size_t)kv->n_lanes * kv->cap_pages, sizeof *kv->ids);
    pith_delete(kv->alloc, kv->lanes, kv->n_lanes, sizeof *kv->lanes);
    *kv = (pith_kv){0};
}

// -------------------------------------------------------------------------------------------------- memory

uint64_t pith_kv_pages_for(const pith_geometry *geo, uint32_t peak) {
    return (uint64_t)pith_n_lanes(geo) * pith_pages_for(peak);
}

static pith_status no_memory(const pith_kv *kv, uint64_t more, pith_error *err) {
    const uint64_t page = kv->pool->pages.page_bytes;
    return pith_fail(err, PITH_E_MEMORY,
                     "the cache needs %llu bytes more for this sequence's worst case, %llu of its %llu are free",
                     (unsigned long long)(more * page),
                     (unsigned long long)((uint64_t)(kv->pool->n_free - kv->pool->promised) * page),
                     (unsigned long long)((uint64_t)kv->pool->n_pages * page));
}

// Pages that the lanes must still be able to take: to reach `peak` rows, less the pages that serve for that already.
// `alone` is what a shared page counts as: one that must be copied before it is written serves for nothing.
static uint64_t pages_wanted(const pith_kv *kv, uint32_t peak, uint32_t stable, bool sharing) {
    uint64_t wanted = 0;
    for (uint32_t i = 0; i < kv->n_lanes; i++) {
        const pith_lane *lane = &kv->lanes[i];
        uint32_t serving = 0;
        for (uint32_t p = 0; p < pith_pages_for(lane->n_rows); p++) {
            bool shared = sharing || pith_pool_shared(kv->pool, lane->pages[p]);
            serving += !shared || (p + 1) * PITH_PAGE_ROWS <= stable;
        }
        uint32_t need = pith_pages_for(peak);
        wanted += need > serving ? need - serving : 0;
    }
    return wanted;
}

pith_status pith_kv_reserve(pith_kv *kv, uint32_t peak, uint32_t stable, pith_error *err) {
    if (pith_pages_for(peak) > kv->cap_pages) return no_memory(kv, pith_kv_pages_for(&kv->pool->pages.geo, peak), err);
    uint64_t wanted = pages_wanted(kv, peak, stable, false);
    if (wanted > kv->allowance) {
        uint64_t more = wanted - kv->allowance;
        if (more > kv->pool->n_pages || !pith_pool_promise(kv->pool, (uint32_t)more)) return no_memory(kv, more, err);
    } else {
        pith_pool_release(kv->pool, kv->allowance - (uint32_t)wanted); // a shorter turn than the last one
    }
    kv->allowance = (uint32_t)wanted;
    return PITH_OK;
}

pith_status pith_kv_fork(pith_kv *dst, pith_kv *src, uint32_t peak, uint32_t stable, pith_error *err) {
    // As owners of the same pages both must be able to copy what is not stable.
    uint64_t wanted = pages_wanted(src, peak, stable, true);
    uint64_t more = wanted > src->allowance ? wanted - src->allowance : 0;
    if (pith_pages_for(peak) > dst->cap_pages || wanted + more > src->pool->n_pages ||
        !pith_pool_promise(src->pool, (uint32_t)(wanted + more)))
        return no_memory(src, wanted + more, err);
    src->allowance += (uint32_t)more;
    dst->allowance = (uint32_t)wanted;
    for (uint32_t i = 0; i < src->n_lanes; i++) {
        const pith_lane *from = &src->lanes[i];
        dst->lanes[i].n_rows = from->n_rows;
        for (uint32_t p = 0; p < pith_pages_for(from->n_rows); p++) {
            pith_pool_own(src->pool, from->pages[p]);
            put_page(dst, &dst->lanes[i], p, from->pages[p]);
            dst->n_held++;
        }
    }
    return PITH_OK;
}

// ---------------------------------------------------------------------------------------------------- rows

void pith_kv_grow(pith_kv *kv, uint32_t n) {
    for (uint32_t i = 0; i < kv->n_lanes; i++) {
        pith_lane *lane = &kv->lanes[i];
        uint32_t have = pith_pages_for(lane->n_rows), need = pith_pages_for(lane->n_rows + n);
        if (lane->n_rows % PITH_PAGE_ROWS != 0) make_own(kv, lane, have - 1);
        for (; have < need; have++) put_page(kv, lane, have, take(kv, lane, have));
        lane->n_rows += n;
    }
}

void pith_kv_adopt(pith_kv *kv, const pith_page_id *ids, uint32_t n_pages) {
    for (uint32_t i = 0; i < kv->n_lanes; i++) {
        pith_lane *lane = &kv->lanes[i];
        for (uint32_t p = 0; p < n_pages; p++) {
            pith_pool_own(kv->pool, ids[(size_t)i * n_pages + p]);
            put_page(kv, lane, lane->n_rows / PITH_PAGE_ROWS + p, ids[(size_t)i * n_pages + p]);
        }
        lane->n_rows += n_pages * PITH_PAGE_ROWS;
    }
    kv->n_held += kv->n_lanes * n_pages;
    kv->allowance -= kv->n_lanes * n_pages;
    pith_pool_release(kv->pool, kv->n_lanes * n_pages);
}

void pith_kv_truncate(pith_kv *kv, uint32_t n_rows) {
    for (uint32_t i = 0; i < kv->n_lanes; i++)
        if (kv->lanes[i].n_rows > n_rows) shrink(kv, &kv->lanes[i], n_rows);
}

pith_group pith_kv_group(const pith_kv *kv, uint32_t layer, uint32_t n_layers, const pith_window *window) {
    return (pith_group){.pages = &kv->pool->pages,
                        .lanes = &kv->lanes[pith_lane_index(&kv->pool->pages.geo, layer, 0)],
                        .table = kv->table,
                        .window = window,
                        .layer = layer,
                        .n_layers = n_layers};
}

uint32_t pith_kv_rows(const pith_kv *kv) {
    uint32_t most = 0;
    for (uint32_t i = 0; i < kv->n_lanes; i++)
        if (kv->lanes[i].n_rows > most) most = kv->lanes[i].n_rows;
    return most;
}

// Which rows move, only the backend knows: none in front of row `stable`. So every page from there on is made this
// sequence's own, where another layout of survivors would have spared some a copy.
void pith_kv_compact(pith_kv *kv, uint32_t layer, uint32_t stable, const pith_scores *scores) {
    if (scores->n == 0) return;
    pith_page_pool *pool = kv->pool;
    const uint32_t n_gone = scores->n - scores->n_keep;
    pith_lane *lanes = &kv->lanes[pith_lane_index(&pool->pages.geo, layer, 0)];
    const uint32_t n_lanes = scores->n_layers * pool->pages.geo.n_kv_heads;
    for (uint32_t i = 0; i < n_lanes; i++)
        for (uint32_t p = stable / PITH_PAGE_ROWS; p < pith_pages_for(lanes[i].n_rows - n_gone); p++)
            make_own(kv, &lanes[i], p);
    const pith_group group = pith_kv_group(kv, layer, scores->n_layers, NULL);
    pool->backend->ops->compact(pool->backend, &group, scores);
    for (uint32_t i = 0; i < n_lanes; i++) shrink(kv, &lanes[i], lanes[i].n_rows - n_gone);
}
