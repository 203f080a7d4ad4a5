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
    if (!kv->lanes || !kv->ids) {
        pith_kv_free(kv);
        return pith_fail(err, PITH_E_MEMORY, "no memory for the page lists of a sequence");
    }
    for (uint32_t i = 0; i < kv->n_lanes; i++)
        kv->lanes[i] = (pith_lane){.pages = kv->ids + (size_t)i * kv->cap_pages, .cap_pages = kv->cap_pages};
    return PITH_OK;
}

// ------------------------------------------------------------------------------------------ one lane's pages

// Every page taken lowers promise and allowance alike, every page given back raises both: what a compaction frees, the
// sequence may need again before its turn ends.
static pith_page_id take(pith_kv *kv) {
    kv->allowance--;
    kv->n_held++;
    return pith_pool_take(kv->pool);
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
    pith_page_id own = take(kv);
    kv->pool->backend->ops->page_copy(kv->pool->backend, &kv->pool->pages, own, old);
    lane->pages[page] = own;
    give_back(kv, old);
}

void pith_kv_free(pith_kv *kv) {
    if (!kv->pool) return;
    if (kv->lanes) pith_kv_truncate(kv, 0);
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
            pith_pool_own(src->pool, dst->lanes[i].pages[p] = from->pages[p]);
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
        while (have < need) lane->pages[have++] = take(kv);
        lane->n_rows += n;
    }
}

void pith_kv_truncate(pith_kv *kv, uint32_t n_rows) {
    for (uint32_t i = 0; i < kv->n_lanes; i++)
        if (kv->lanes[i].n_rows > n_rows) shrink(kv, &kv->lanes[i], n_rows);
}

uint32_t pith_kv_rows(const pith_kv *kv) {
    uint32_t most = 0;
    for (uint32_t i = 0; i < kv->n_lanes; i++)
        if (kv->lanes[i].n_rows > most) most = kv->lanes[i].n_rows;
    return most;
}

// The rows of a lane that stay, from the first candidate on, ascending; returns their number.
static uint32_t survivors(uint32_t n_rows, const uint32_t *candidates, uint32_t n, const uint32_t *keep,
                          uint32_t n_keep, uint32_t *rows) {
    uint32_t n_stay = 0, c = 0, k = 0;
    for (uint32_t row = candidates[0]; row < n_rows; row++) {
        bool stays = true;
        if (c < n && candidates[c] == row) {
            stays = k < n_keep && keep[k] == c;
            k += stays;
            c++;
        }
        if (stays) rows[n_stay++] = row;
    }
    return n_stay;
}

void pith_kv_compact(pith_kv *kv, uint32_t layer, const pith_scores *scores, uint32_t n_sets, uint32_t n_keep,
                     const uint32_t *keep, uint32_t *scratch) {
    if (scores->n == 0) return;
    pith_page_pool *pool = kv->pool;
    const uint32_t n_heads = pool->pages.geo.n_kv_heads;
    for (uint32_t h = 0; h < n_heads; h++) {
        pith_lane *lane = &kv->lanes[pith_lane_index(&pool->pages.geo, layer, h)];
        const uint32_t *candidates = scores->rows + (size_t)h * scores->n;
        const uint32_t *set = keep + (n_sets == 1 ? 0 : (size_t)h * n_keep);
        uint32_t n = survivors(lane->n_rows, candidates, scores->n, set, n_keep, scratch);
        uint32_t first = candidates[0], skip = 0;
        while (skip < n && scratch[skip] == first + skip) skip++; // in place already
        first += skip;
        if (n > skip)
            for (uint32_t p = first / PITH_PAGE_ROWS; p < pith_pages_for(first + n - skip); p++) make_own(kv, lane, p);
        pool->backend->ops->compact(pool->backend, &pool->pages, lane, first, scratch + skip, n - skip);
        shrink(kv, lane, first + n - skip);
    }
}
