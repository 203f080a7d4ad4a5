// The rig's CPU side: the bodies of the operations, without the backend around them.
#include "rpc_rig.h"

#include "cpu/events.h"
#include "t.h"

// What a backend of the real engine holds for events.
typedef struct rig_backend {
    pith_backend base;
    const pith_cpu_kernels *kernels;
    pith_geometry geo;
    uint32_t *rows;  // (G, n), n candidates per lane
    float *score;    // (H, n)
    uint32_t *keep;  // (G, n)
    float *scratch;  // for mass, pooling
    uint32_t *order; // (n) for top
} rig_backend;

static rig_backend *rig_of(pith_backend *b) { return (rig_backend *)(void *)b; }

static void op_candidates(pith_backend *b, const pith_group *group, const pith_span *protect, uint32_t n_protect,
                          uint32_t n_tail, pith_scores *out) {
    rig_backend *rig = rig_of(b);
    *out = (pith_scores){.n_layers = 1, .rows = rig->rows, .score = rig->score, .keep = rig->keep};
    for (uint32_t g = 0; g < rig->geo.n_kv_heads; g++) {
        const uint32_t n = pith_candidates_lane(group->pages, &group->lanes[g], protect, n_protect, n_tail,
                                                rig->rows + (size_t)g * out->n);
        if (g == 0) out->n = n;
        assert_int_equal(n, out->n);
    }
}

static void op_mass(pith_backend *b, const pith_group *group, const uint32_t *slots, uint32_t n_slots, pith_arith arith,
                    pith_scores *s) {
    rig_backend *rig = rig_of(b);
    const uint32_t heads = rig->geo.n_heads / rig->geo.n_kv_heads;
    const float *q =
        group->window->q + (size_t)group->layer * group->window->cap * rig->geo.n_heads * rig->geo.head_dim;
    for (uint32_t g = 0; g < rig->geo.n_kv_heads; g++)
        pith_mass_lane(rig->kernels, group->pages, &group->lanes[g], g, q, slots, n_slots, s->rows + (size_t)g * s->n,
                       s->n, arith, s->score + (size_t)g * heads * s->n, rig->scratch);
    s->n_sets = rig->geo.n_heads;
}

static void op_aggregate(pith_backend *b, const pith_geometry *geo, pith_aggregate aggregate, pith_arith arith,
                         pith_scores *s) {
    (void)b;
    pith_aggregate_scores(geo, aggregate, arith, s->n, s->score);
    s->n_sets = aggregate == PITH_AGG_LAYER ? 1 : geo->n_kv_heads;
}

static void op_pool(pith_backend *b, pith_pool pool, uint32_t width, pith_arith arith, pith_scores *s) {
    pith_pool_scores(pool, width, arith, s->n_sets, s->n, s->score, rig_of(b)->scratch);
}

static void op_top(pith_backend *b, pith_scores *s, uint32_t k) {
    s->n_keep = k;
    for (uint32_t set = 0; set < s->n_sets; set++)
        pith_top_scores(s->score + (size_t)set * s->n, s->n, k, s->keep + (size_t)set * k, rig_of(b)->order);
}

static const pith_ops rig_ops = {
    .name = "rig",
    .candidates = op_candidates,
    .mass = op_mass,
    .aggregate = op_aggregate,
    .pool = op_pool,
    .top = op_top,
};

// ---------------------------------------------------------------------------------------------------- the side

static rig_backend cpu;

static pith_backend *cpu_open(const rig_room *room) {
    const pith_geometry *geo = &room->geo;
    const uint32_t n = room->n_candidates;
    cpu = (rig_backend){.base.ops = &rig_ops, .geo = *geo};
    cpu.kernels = pith_cpu_kernels_choose(getenv("PITH_DISABLE_CPU"));
    cpu.rows = t_new((size_t)geo->n_kv_heads * n * sizeof *cpu.rows);
    cpu.score = t_new((size_t)geo->n_heads * n * sizeof *cpu.score);
    cpu.keep = t_new((size_t)geo->n_kv_heads * n * sizeof *cpu.keep);
    cpu.order = t_new(n * sizeof *cpu.order);
    const size_t scratch = pith_mass_scratch(geo, n, room->n_queries);
    cpu.scratch = t_new((scratch > n ? scratch : n) * sizeof *cpu.scratch);
    return &cpu.base;
}

static void cpu_close(void) {
    free(cpu.rows);
    free(cpu.score);
    free(cpu.keep);
    free(cpu.order);
    free(cpu.scratch);
}

static void cpu_write_row(const pith_pages *pages, const pith_lane *lane, uint32_t row, const float *key, int32_t pos) {
    static const float no_value[PITH_MAX_HEAD_DIM];
    pith_append_row(cpu.kernels, pages, lane, row, key, no_value, pos);
}

static void move_row(const pith_pages *pages, const pith_lane *lane, uint32_t to, uint32_t from) {
    const pith_geometry *geo = &pages->geo;
    uint8_t *dst = pith_page_at(pages, lane->pages[to / PITH_PAGE_ROWS]);
    const uint8_t *src = pith_page_at(pages, lane->pages[from / PITH_PAGE_ROWS]);
    for (uint32_t i = 0; i < geo->head_dim; i++)
        memmove(dst + pith_k_index(geo, to % PITH_PAGE_ROWS, i) * geo->elt_bytes,
                src + pith_k_index(geo, from % PITH_PAGE_ROWS, i) * geo->elt_bytes, geo->elt_bytes);
    *pith_lane_pos(pages, lane, to) = *pith_lane_pos(pages, lane, from);
}

static void compact_lane(const pith_pages *pages, const pith_lane *lane, const uint32_t *rows, uint32_t n,
                         const uint32_t *keep, uint32_t n_keep) {
    uint32_t to = 0, candidate = 0, kept = 0;
    for (uint32_t row = 0; row < lane->n_rows; row++) {
        bool stays = true;
        if (candidate < n && rows[candidate] == row) {
            stays = kept < n_keep && keep[kept] == candidate;
            kept += stays;
            candidate++;
        }
        if (stays) move_row(pages, lane, to++, row);
    }
    assert_int_equal(kept, n_keep); // fails when `keep` is not ascending, unique and in range
}

static void cpu_compact(const pith_event *event) {
    const pith_scores *s = &event->scores;
    for (uint32_t g = 0; g < cpu.geo.n_kv_heads; g++)
        compact_lane(event->group.pages, &event->group.lanes[g], s->rows + (size_t)g * s->n, s->n,
                     s->keep + (size_t)(s->n_sets == 1 ? 0 : g) * s->n_keep, s->n_keep);
}

const rig_side rig_cpu = {
    .n_layers = 1, .open = cpu_open, .write_row = cpu_write_row, .compact = cpu_compact, .close = cpu_close};
