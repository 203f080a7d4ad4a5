// The work around a compression, on the step's threads.
#include <string.h>

#include "base/mem.h"
#include "cpu/cpu.h"

static pith_status events_reserve(pith_backend *backend, const pith_geometry *geo, uint32_t n, uint32_t n_slots,
                                  pith_error *err) {
    pith_cpu *cpu = (pith_cpu *)backend;
    if (n <= cpu->event_n && n_slots <= cpu->event_slots) return PITH_OK;
    if (n < cpu->event_n) n = cpu->event_n;
    if (n_slots < cpu->event_slots) n_slots = cpu->event_slots;

    const size_t rows = pith_page_align((size_t)geo->n_kv_heads * n * sizeof(uint32_t)), keep = rows;
    const size_t score = pith_page_align((size_t)geo->n_heads * n * sizeof(float));
    size_t work_floats = pith_mass_scratch(geo, n, n_slots);
    if (work_floats < n) work_floats = n; // pooling
    const size_t work = pith_page_align(work_floats * sizeof(float)), u32 = pith_page_align(n * sizeof(uint32_t));
    const size_t moves = pith_page_align(((size_t)cpu->max_rows + 1) * sizeof(uint32_t));
    const size_t bytes = rows + score + keep + moves + cpu->threads.max * (work + u32);
    uint8_t *memory = pith_new(cpu->alloc, bytes, 1);
    if (!memory) return pith_fail(err, PITH_E_MEMORY, "no memory for %zu bytes of compression scratch", bytes);

    pith_delete(cpu->alloc, cpu->event_memory, cpu->event_bytes, 1);
    cpu->event_memory = memory, cpu->event_bytes = bytes;
    cpu->event_n = n, cpu->event_slots = n_slots;
    cpu->event_rows = (uint32_t *)(void *)memory;
    cpu->event_score = (float *)(void *)(memory + rows);
    cpu->event_keep = (uint32_t *)(void *)(memory + rows + score);
    cpu->event_moves = (uint32_t *)(void *)(memory + rows + score + keep);
    cpu->event_work = (float *)(void *)(memory + rows + score + keep + moves);
    cpu->event_work_floats = work / sizeof(float);
    cpu->event_u32 = (uint32_t *)(void *)(memory + rows + score + keep + moves + cpu->threads.max * work);
    return PITH_OK;
}

static float *work_of(const pith_cpu *cpu, int thread) {
    return cpu->event_work + (size_t)thread * cpu->event_work_floats;
}
static uint32_t *u32_of(const pith_cpu *cpu, int thread) {
    return cpu->event_u32 + (size_t)thread * (pith_page_align(cpu->event_n * sizeof(uint32_t)) / sizeof(uint32_t));
}

static void candidates(pith_backend *backend, const pith_group *group, const pith_span *protect, uint32_t n_protect,
                       uint32_t n_tail, pith_scores *out) {
    pith_cpu *cpu = (pith_cpu *)backend;
    const uint32_t n_heads = group->pages->geo.n_kv_heads;
    *out = (pith_scores){.n_layers = 1,
                         .rows = cpu->event_rows,
                         .score = cpu->event_score,
                         .keep = cpu->event_keep,
                         .n_sets = group->pages->geo.n_heads};
    for (uint32_t h = 0; h < n_heads; h++)
        out->n = pith_candidates_lane(group->pages, &group->lanes[h], protect, n_protect, n_tail,
                                      h == 0 ? out->rows : out->rows + (size_t)h * out->n);
}

struct mass_job {
    const pith_group *group;
    const float *q; // (cap, H, d)
    const uint32_t *slots;
    uint32_t n_slots;
    pith_arith arith;
    pith_scores *scores;
};

static void mass_task(pith_cpu *cpu, int thread, uint32_t h, void *arg) {
    const struct mass_job *j = arg;
    const pith_pages *pages = j->group->pages;
    const uint32_t g = pages->geo.n_heads / pages->geo.n_kv_heads, n = j->scores->n;
    pith_mass_lane(cpu->kernels, pages, &j->group->lanes[h], h, j->q, j->slots, j->n_slots,
                   j->scores->rows + (size_t)h * n, n, j->arith, j->scores->score + (size_t)h * g * n,
                   work_of(cpu, thread));
}

static void mass(pith_backend *backend, const pith_group *group, const uint32_t *slots, uint32_t n_slots,
                 pith_arith arith, pith_scores *scores) {
    const pith_geometry *geo = &group->pages->geo;
    const size_t layer_floats = (size_t)group->window->cap * geo->n_heads * geo->head_dim;
    struct mass_job job = {group, group->window->q + group->layer * layer_floats, slots, n_slots, arith, scores};
    pith_cpu_run((pith_cpu *)backend, geo->n_kv_heads, mass_task, &job);
    scores->n_sets = geo->n_heads;
}

static void aggregate(pith_backend *backend, const pith_geometry *geo, pith_aggregate how, pith_arith arith,
                      pith_scores *scores) {
    (void)backend;
    pith_aggregate_scores(geo, how, arith, scores->n, scores->score);
    scores->n_sets = how == PITH_AGG_LAYER ? 1 : geo->n_kv_heads;
}

static void pool(pith_backend *backend, pith_pool how, uint32_t width, pith_arith arith, pith_scores *scores) {
    pith_pool_scores(how, width, arith, scores->n_sets, scores->n, scores->score, work_of((pith_cpu *)backend, 0));
}

static void top(pith_backend *backend, pith_scores *scores, uint32_t n_keep) {
    scores->n_keep = n_keep;
    for (uint32_t set = 0; set < scores->n_sets; set++)
        pith_top_scores(scores->score + (size_t)set * scores->n, scores->n, n_keep, scores->keep + (size_t)set * n_keep,
                        u32_of((pith_cpu *)backend, 0));
}

static void choose(pith_backend *backend, pith_scores *scores, uint32_t n_sets, uint32_t n_keep, const uint32_t *keep) {
    (void)backend;
    scores->n_sets = n_sets, scores->n_keep = n_keep;
    memcpy(scores->keep, keep, (size_t)n_sets * n_keep * sizeof *keep);
}

static void compact(pith_backend *backend, const pith_group *group, const pith_scores *scores) {
    pith_cpu *cpu = (pith_cpu *)backend;
    for (uint32_t h = 0; h < group->pages->geo.n_kv_heads; h++) {
        const uint32_t *candidates = scores->rows + (size_t)h * scores->n;
        const uint32_t *keep = scores->keep + (scores->n_sets == 1 ? 0 : (size_t)h * scores->n_keep);
        pith_compact_lane(group->pages, &group->lanes[h], candidates, scores->n, keep, scores->n_keep,
                          cpu->event_moves);
    }
}

static void positions(pith_backend *backend, const pith_group *group, uint32_t lane, int32_t *out) {
    (void)backend;
    for (uint32_t row = 0; row < group->lanes[lane].n_rows; row++)
        out[row] = *pith_lane_pos(group->pages, &group->lanes[lane], row);
}

void pith_cpu_table_events(pith_ops *ops) {
    ops->event_layers = 1; // layers are independent, and one has work enough for the threads
    ops->events_reserve = events_reserve;
    ops->candidates = candidates;
    ops->mass = mass;
    ops->aggregate = aggregate;
    ops->pool = pool;
    ops->top = top;
    ops->choose = choose;
    ops->compact = compact;
    ops->positions = positions;
}
