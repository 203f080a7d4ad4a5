// Pages, promises, sharing and compaction, against a cache that is a plain array of positions.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "cache/kv.h"
#include "cpu/kernels.h"

static const pith_geometry geo = {.n_layers = 2, .n_heads = 4, .n_kv_heads = 2, .head_dim = 8, .elt_bytes = 2};

// A backend with memory and moves only.
static pith_status create(pith_backend *b, const pith_geometry *g, uint32_t n, pith_pages *out, pith_error *err) {
    (void)b, (void)err;
    *out = (pith_pages){.base = calloc(n, pith_page_bytes(g)), .page_bytes = pith_page_bytes(g), .geo = *g};
    return PITH_OK;
}
static void destroy(pith_backend *b, pith_pages *p, uint32_t n) {
    (void)b, (void)n;
    free(p->base);
}
static void copy(pith_backend *b, const pith_pages *p, pith_page_id dst, pith_page_id src) {
    (void)b;
    memcpy(pith_page_at(p, dst), pith_page_at(p, src), p->page_bytes);
}
static void compact(pith_backend *b, const pith_group *group, const pith_scores *s) {
    (void)b;
    static uint32_t scratch[1 << 12];
    for (uint32_t h = 0; h < 2; h++)
        pith_compact_lane(group->pages, &group->lanes[h], s->rows + (size_t)h * s->n, s->n,
                          s->keep + (s->n_sets == 1 ? 0 : (size_t)h * s->n_keep), s->n_keep, scratch);
}

// The copy of the page lists that a device would have: (lanes, cap_pages).
struct pith_table {
    uint32_t cap_pages;
    pith_page_id ids[];
};
static pith_status table_create(pith_backend *b, const pith_geometry *g, uint32_t cap_pages, pith_table **out,
                                pith_error *err) {
    (void)b, (void)err;
    *out = calloc(1, sizeof **out + (size_t)pith_n_lanes(g) * cap_pages * sizeof(pith_page_id));
    assert_non_null(*out);
    (*out)->cap_pages = cap_pages;
    return PITH_OK;
}
static void table_destroy(pith_backend *b, pith_table *table) {
    (void)b;
    free(table);
}
static void table_set(pith_table *table, uint32_t lane, uint32_t at, pith_page_id id) {
    assert_true(lane < pith_n_lanes(&geo) && at < table->cap_pages);
    table->ids[lane * table->cap_pages + at] = id;
}

static const pith_ops ops = {.pool_create = create,
                             .pool_destroy = destroy,
                             .page_copy = copy,
                             .compact = compact,
                             .table_create = table_create,
                             .table_destroy = table_destroy,
                             .table_set = table_set};
static pith_backend backend = {&ops};

static uint64_t draws;
static uint32_t below(uint32_t n) { return (uint32_t)(pith_mix64(draws++) % n); }

enum { LANES = 4, MAX_ROWS = 1000, TIMELINES = 3 };

typedef struct timeline {
    bool alive;
    pith_kv kv;
    uint32_t n_rows[LANES];
    int32_t pos[LANES][MAX_ROWS]; // what each lane should hold
    int32_t next_pos;
    uint32_t stable, peak;
} timeline;

// A row's contents all follow from its position and its lane, so a row that moved wrongly shows.
static void write_row(const pith_page_pool *pool, const pith_lane *lane, uint32_t row, int32_t pos, uint32_t tag) {
    pith_page_id id = lane->pages[row / 64];
    *pith_lane_pos(&pool->pages, lane, row) = pos;
    uint16_t *k = (uint16_t *)(void *)pith_page_at(&pool->pages, id),
             *v = (uint16_t *)(void *)pith_page_v(&pool->pages, id);
    for (uint32_t i = 0; i < geo.head_dim; i++) {
        k[pith_k_index(&geo, row % 64, i)] = (uint16_t)(pos * 31 + (int32_t)(tag * 7 + i));
        v[pith_v_index(&geo, row % 64, i)] = (uint16_t)(pos * 17 + (int32_t)(tag * 5 + i));
    }
}

static void check(const timeline *t) {
    for (uint32_t l = 0; l < LANES; l++) {
        const pith_lane *lane = &t->kv.lanes[l];
        assert_int_equal(lane->n_rows, t->n_rows[l]);
        assert_memory_equal(&t->kv.table->ids[l * t->kv.cap_pages], lane->pages,
                            pith_pages_for(lane->n_rows) * sizeof *lane->pages);
        for (uint32_t row = 0; row < lane->n_rows; row++) {
            const pith_pages *pages = &t->kv.pool->pages;
            const int32_t pos = t->pos[l][row];
            assert_int_equal(*pith_lane_pos(pages, lane, row), pos);
            pith_page_id id = lane->pages[row / 64];
            const uint16_t *k = (const uint16_t *)(const void *)pith_page_at(pages, id);
            const uint16_t *v = (const uint16_t *)(const void *)pith_page_v(pages, id);
            for (uint32_t i = 0; i < geo.head_dim; i++) {
                assert_int_equal(k[pith_k_index(&geo, row % 64, i)], (uint16_t)(pos * 31 + (int32_t)(l * 7 + i)));
                assert_int_equal(v[pith_v_index(&geo, row % 64, i)], (uint16_t)(pos * 17 + (int32_t)(l * 5 + i)));
            }
        }
    }
}

static void grow(timeline *t, uint32_t n) {
    pith_kv_grow(&t->kv, n);
    for (uint32_t l = 0; l < LANES; l++)
        for (uint32_t i = 0; i < n; i++) {
            write_row(t->kv.pool, &t->kv.lanes[l], t->n_rows[l], t->next_pos + (int32_t)i, l);
            t->pos[l][t->n_rows[l]++] = t->next_pos + (int32_t)i;
        }
    t->next_pos += (int32_t)n;
}

// Rows [stable, end - tail) of both lanes of a layer are candidates; a random subset stays.
static void squeeze(timeline *t, uint32_t layer, bool one_set) {
    static uint32_t candidates[2 * MAX_ROWS], keep[2 * MAX_ROWS];
    const uint32_t n_rows = t->n_rows[2 * layer], tail = below(10);
    if (n_rows <= t->stable + tail || t->n_rows[2 * layer + 1] != n_rows) return;
    const uint32_t n = n_rows - t->stable - tail, n_keep = below(n + 1);
    const pith_scores scores = {
        .n_layers = 1, .n = n, .n_sets = one_set ? 1 : 2, .n_keep = n_keep, .rows = candidates, .keep = keep};
    for (uint32_t h = 0; h < 2; h++)
        for (uint32_t i = 0; i < n; i++) candidates[h * n + i] = t->stable + i;
    for (uint32_t set = 0; set < (one_set ? 1u : 2u); set++) {
        uint32_t chosen = 0;
        for (uint32_t i = 0; i < n && chosen < n_keep; i++)
            if (below(n - i) < n_keep - chosen) keep[set * n_keep + chosen++] = i;
        assert_int_equal(chosen, n_keep);
    }
    pith_kv_compact(&t->kv, layer, t->stable, &scores);
    for (uint32_t h = 0; h < 2; h++) {
        int32_t *pos = t->pos[2 * layer + h];
        const uint32_t *set = keep + (one_set ? 0 : h * n_keep);
        uint32_t to = t->stable;
        for (uint32_t i = 0; i < n_keep; i++) pos[to++] = pos[t->stable + set[i]];
        for (uint32_t row = n_rows - tail; row < n_rows; row++) pos[to++] = pos[row];
        t->n_rows[2 * layer + h] = to;
    }
}

static void check_pool(const pith_page_pool *pool, timeline *ts) {
    assert_true(pool->promised <= pool->n_free);
    uint32_t allowed = 0, owned = 0, owners = 0;
    for (uint32_t i = 0; i < TIMELINES; i++)
        if (ts[i].alive) allowed += ts[i].kv.allowance, owned += ts[i].kv.n_held;
    assert_int_equal(pool->promised, allowed);
    for (uint32_t p = 0; p < pool->n_pages; p++) owners += pool->owners[p];
    assert_int_equal(owners, owned);
}

static void random_lives(void **state) {
    (void)state;
    uint32_t forks = 0, refused = 0;
    for (uint32_t life = 0; life < 60; life++) {
        pith_page_pool pool;
        assert_int_equal(pith_pool_init(&pool, &backend, NULL, &geo, 60 + below(120), NULL), PITH_OK);
        static timeline ts[TIMELINES];
        memset(ts, 0, sizeof ts);
        for (uint32_t i = 0; i < 300; i++) {
            timeline *t = &ts[below(TIMELINES)];
            const uint32_t what = below(12);
            if (!t->alive && what < 4) {
                *t = (timeline){.alive = true, .stable = 1 + below(200)};
                t->peak = t->stable + 64 + below(300);
                assert_int_equal(pith_kv_init(&t->kv, &pool, NULL, MAX_ROWS, NULL), PITH_OK);
                if (pith_kv_reserve(&t->kv, t->peak, t->stable, NULL) != PITH_OK) {
                    refused++;
                    pith_kv_free(&t->kv);
                    t->alive = false;
                } else grow(t, t->stable);
            } else if (!t->alive) {
                continue;
            } else if (what < 6) {
                const uint32_t room = t->peak - pith_kv_rows(&t->kv);
                if (room > 0) grow(t, 1 + below(room < 70 ? room : 70));
            } else if (what < 9) {
                const bool one_set = below(2);
                for (uint32_t layer = 0; layer < 2; layer++) squeeze(t, layer, one_set);
            } else if (what < 11) {
                timeline *f = &ts[below(TIMELINES)];
                if (!f->alive && f != t) {
                    *f = *t;
                    assert_int_equal(pith_kv_init(&f->kv, &pool, NULL, MAX_ROWS, NULL), PITH_OK);
                    f->alive = pith_kv_fork(&f->kv, &t->kv, t->peak, t->stable, NULL) == PITH_OK;
                    if (!f->alive) pith_kv_free(&f->kv), refused++;
                    else forks++;
                }
            } else {
                pith_kv_free(&t->kv);
                t->alive = false;
            }
            check_pool(&pool, ts);
            for (uint32_t k = 0; k < TIMELINES; k++)
                if (ts[k].alive) check(&ts[k]);
        }
        for (uint32_t k = 0; k < TIMELINES; k++)
            if (ts[k].alive) pith_kv_free(&ts[k].kv);
        assert_int_equal(pool.n_free, pool.n_pages);
        assert_int_equal(pool.promised, 0);
        pith_pool_free(&pool);
    }
    print_message("%u forks, %u refusals\n", forks, refused);
    assert_true(forks > 50 && refused > 50); // else the lives prove little
}

// A reservation that does not fit says how many bytes it needs and how many there are, and changes nothing.
static void refusal_names_bytes(void **state) {
    (void)state;
    pith_page_pool pool;
    assert_int_equal(pith_pool_init(&pool, &backend, NULL, &geo, 7, NULL), PITH_OK);
    pith_kv kv;
    pith_error err;
    assert_int_equal(pith_kv_init(&kv, &pool, NULL, MAX_ROWS, NULL), PITH_OK);
    assert_int_equal(pith_kv_reserve(&kv, 65, 10, &err), PITH_E_MEMORY); // 2 pages for each of 4 lanes
    char needed[32], there[32];
    snprintf(needed, sizeof needed, "needs %zu bytes", 8 * pith_page_bytes(&geo));
    snprintf(there, sizeof there, "%zu of its %zu are free", 7 * pith_page_bytes(&geo), 7 * pith_page_bytes(&geo));
    assert_non_null(strstr(err.msg, needed));
    assert_int_equal(pool.promised, 0);
    assert_int_equal(pith_kv_reserve(&kv, 64, 10, &err), PITH_OK);
    assert_int_equal(pool.promised, 4);
    pith_kv_free(&kv);
    pith_pool_free(&pool);
}

// What a compaction frees is in the pool when it returns, and another sequence can have it once it is not promised.
static void memory_comes_back(void **state) {
    (void)state;
    pith_page_pool pool;
    assert_int_equal(pith_pool_init(&pool, &backend, NULL, &geo, 40, NULL), PITH_OK);
    static timeline t;
    t = (timeline){.alive = true, .stable = 64, .peak = 640};
    assert_int_equal(pith_kv_init(&t.kv, &pool, NULL, MAX_ROWS, NULL), PITH_OK);
    assert_int_equal(pith_kv_reserve(&t.kv, 640, 64, NULL), PITH_OK);
    grow(&t, 640);
    assert_int_equal(pool.n_free, 0);
    static uint32_t candidates[2 * 576];
    for (uint32_t i = 0; i < 576; i++) candidates[i] = candidates[576 + i] = 64 + i;
    const pith_scores scores = {.n_layers = 1, .n = 576, .n_sets = 1, .rows = candidates, .keep = candidates};
    for (uint32_t layer = 0; layer < 2; layer++) pith_kv_compact(&t.kv, layer, 64, &scores);
    assert_int_equal(pool.n_free, 36); // the prompt's page of each lane stays
    assert_int_equal(t.kv.n_held, 4);
    pith_kv_free(&t.kv);
    pith_pool_free(&pool);
}

// Pages of each lane of `kv` that do not lie behind the page in front of them.
static uint32_t breaks(const pith_kv *kv) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < kv->n_lanes; i++)
        for (uint32_t p = 1; p < pith_pages_for(kv->lanes[i].n_rows); p++)
            n += kv->lanes[i].pages[p] != kv->lanes[i].pages[p - 1] + 1;
    return n;
}

// Lanes that grow row by row, side by side, lie in runs; and a pool without a whole run left still gives all it has.
static void lanes_lie_in_runs(void **state) {
    (void)state;
    enum { PAGES = PITH_RUN_PAGES + 2, ROWS = PAGES * PITH_PAGE_ROWS }; // a lane: a run and a part of one
    pith_page_pool pool;
    pith_kv kv[3];
    const uint32_t n_lanes = pith_n_lanes(&geo), n_runs = 4 * n_lanes; // of which two sequences begin all
    assert_int_equal(pith_pool_init(&pool, &backend, NULL, &geo, n_runs * PITH_RUN_PAGES, NULL), PITH_OK);
    for (uint32_t k = 0; k < 3; k++) assert_int_equal(pith_kv_init(&kv[k], &pool, NULL, ROWS, NULL), PITH_OK);
    for (uint32_t k = 0; k < 3; k++) assert_int_equal(pith_kv_reserve(&kv[k], ROWS, 0, NULL), PITH_OK);
    for (uint32_t row = 0; row < ROWS; row++)
        for (uint32_t k = 0; k < 2; k++) pith_kv_grow(&kv[k], 1);
    for (uint32_t k = 0; k < 2; k++) assert_int_equal(breaks(&kv[k]), n_lanes);
    pith_kv_grow(&kv[2], ROWS); // what was left of runs
    assert_int_equal(pool.n_free, n_runs * PITH_RUN_PAGES - 3 * n_lanes * PAGES);
    for (uint32_t k = 0; k < 3; k++) pith_kv_free(&kv[k]);
    assert_int_equal(pool.n_free, pool.n_pages);
    assert_int_equal(pith_kv_init(&kv[0], &pool, NULL, ROWS, NULL), PITH_OK);
    assert_int_equal(pith_kv_reserve(&kv[0], ROWS, 0, NULL), PITH_OK);
    for (uint32_t row = 0; row < ROWS; row++) pith_kv_grow(&kv[0], 1);
    assert_int_equal(breaks(&kv[0]), n_lanes); // runs are whole again
    pith_kv_free(&kv[0]);
    pith_pool_free(&pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_lives),
        cmocka_unit_test(lanes_lie_in_runs),
        cmocka_unit_test(refusal_names_bytes),
        cmocka_unit_test(memory_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
