#include "rpc_rig.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cpu/events.h"

enum { MAX_LANES = 16, MAX_TOKENS = 640, MAX_PAGES = MAX_TOKENS / PITH_PAGE_ROWS };

// ---------------------------------------------------------------------------- the operations, on one thread

// What a backend of the real engine holds for events.
typedef struct rig_backend {
    pith_backend base;
    const pith_cpu_kernels *kernels;
    pith_geometry geo;
    uint32_t n;      // room: candidates per lane
    uint32_t *rows;  // (G, n)
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

// ------------------------------------------------------------------------------------------- one running case

typedef struct rig {
    const rig_case *c;
    pith_spec spec;
    pith_policy_state state;
    rig_backend backend;
    pith_pages pages;
    pith_lane lanes[RIG_LAYERS * MAX_LANES]; // (n_layers, G)
    pith_page_id ids[RIG_LAYERS * MAX_LANES][MAX_PAGES];
    pith_span protect[RIG_TURNS];
    uint32_t n_protect;
    pith_window window;
    float *q, *k;                // (n_layers, N, H, d), (n_layers, N, G, d): the whole timeline, for the oracle
    uint32_t n;                  // N
    uint32_t number[MAX_TOKENS]; // by position: i for the i-th generated token, 0 for a prompt's
    uint32_t n_generated, n_events;
    uint64_t period, recent; // P and R
    uint64_t random;
} rig;

static float *query_at(rig *r, uint32_t layer, uint32_t pos) {
    return r->q + ((size_t)layer * r->n + pos) * r->c->n_heads * r->c->head_dim;
}
static float *key_at(rig *r, uint32_t layer, uint32_t pos) {
    return r->k + ((size_t)layer * r->n + pos) * r->c->n_kv_heads * r->c->head_dim;
}

static uint64_t mix(uint64_t x) { // the finaliser of splitmix64
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}
static uint32_t draw(rig *r, uint32_t n) { return (uint32_t)(mix(r->random += 0x9e3779b97f4a7c15u) >> 32) % n; }

static void *zeros(size_t count, size_t size) {
    void *p = calloc(count ? count : 1, size);
    assert_non_null(p);
    return p;
}

static uint64_t number_in(const char *spec, const char *key) {
    const char *at = strstr(spec, key);
    assert_non_null(at);
    return strtoull(at + strlen(key), NULL, 10);
}

static void rig_open(rig *r, const rig_case *c) {
    *r = (rig){.c = c, .random = c->seed};
    pith_error err;
    if (pith_spec_parse(c->spec, &r->spec, &err)) fail_msg("%s", err.msg);
    r->period = number_in(r->spec.text, ":p=");
    r->recent = number_in(r->spec.text, ",r=");
    uint32_t n_generated = 0;
    for (uint32_t t = 0; t < RIG_TURNS; t++) r->n += c->turns[t][0] + c->turns[t][1], n_generated += c->turns[t][1];
    assert_true(r->n <= MAX_TOKENS && c->n_kv_heads <= MAX_LANES);

    const pith_geometry geo = {RIG_LAYERS, c->n_heads, c->n_kv_heads, c->head_dim, c->elt_bytes};
    r->pages = (pith_pages){.page_bytes = pith_page_bytes(&geo), .geo = geo};
    r->pages.base = aligned_alloc(PITH_PAGE_ALIGN, r->pages.page_bytes * RIG_LAYERS * c->n_kv_heads * MAX_PAGES);
    assert_non_null(r->pages.base);
    // all bits set: NaN in f16 and f32, so that garbage which reaches a result is seen
    memset(r->pages.base, 0xff, r->pages.page_bytes * RIG_LAYERS * c->n_kv_heads * MAX_PAGES);
    for (uint32_t lane = 0, id = 0; lane < pith_n_lanes(&geo); lane++) {
        for (uint32_t p = 0; p < MAX_PAGES; p++) r->ids[lane][p] = id++;
        r->lanes[lane] = (pith_lane){.pages = r->ids[lane], .cap_pages = MAX_PAGES};
    }

    const pith_policy *policy = r->spec.policy;
    rig_backend *b = &r->backend;
    *b = (rig_backend){.base.ops = &rig_ops, .geo = geo};
    b->kernels = pith_cpu_kernels_choose(getenv("PITH_DISABLE_CPU"));
    b->n = policy->max_candidates(&r->spec.params, &r->state, n_generated); // exactly: one more would be out of bounds
    b->rows = zeros((size_t)c->n_kv_heads * b->n, sizeof *b->rows);
    b->score = zeros((size_t)c->n_heads * b->n, sizeof *b->score);
    b->keep = zeros((size_t)c->n_kv_heads * b->n, sizeof *b->keep);
    b->order = zeros(b->n, sizeof *b->order);
    size_t scratch = pith_mass_scratch(&geo, b->n, policy->max_queries(&r->spec.params));
    b->scratch = zeros(scratch > b->n ? scratch : b->n, sizeof *b->scratch);

    r->window.cap = policy->window(&r->spec.params);
    r->window.q = zeros((size_t)RIG_LAYERS * r->window.cap * c->n_heads * c->head_dim, sizeof *r->window.q);
    r->q = zeros((size_t)RIG_LAYERS * r->n * c->n_heads * c->head_dim, sizeof *r->q);
    r->k = zeros((size_t)RIG_LAYERS * r->n * c->n_kv_heads * c->head_dim, sizeof *r->k);
}

static void rig_close(rig *r) {
    free(r->pages.base);
    free(r->backend.rows);
    free(r->backend.score);
    free(r->backend.keep);
    free(r->backend.order);
    free(r->backend.scratch);
    free(r->window.q);
    free(r->q);
    free(r->k);
}

// ---------------------------------------------------------------------------------------------------- the data

// EXACT keys: d-1 signs, then a number in [0, 2048) / 2048 that no other position of the lane has.
static void draw_code(rig *r, float *k, uint32_t pos) {
    const uint32_t d = r->c->head_dim;
    for (uint32_t i = 0; i + 1 < d; i++) k[i] = draw(r, 2) ? 1.0f : -1.0f;
    k[d - 1] = (float)(pos * 1031 % 2048) / 2048; // exact in f16
}

// How many of the candidates of the next compression match q best. They are the generated tokens up to number (k+1)P
// that are still there.
static uint32_t best_matches(rig *r, uint32_t layer, uint32_t lane_of_layer, const float *q) {
    const pith_lane *lane = &r->lanes[layer * r->c->n_kv_heads + lane_of_layer];
    const uint64_t last = (r->n_events + 1) * r->period;
    float best = -INFINITY;
    uint32_t count = 0;
    for (uint32_t row = 0; row < lane->n_rows; row++) {
        const uint32_t pos = (uint32_t)*pith_lane_pos(&r->pages, lane, row);
        if (r->number[pos] == 0 || r->number[pos] > last) continue;
        const float *k = key_at(r, layer, pos) + (size_t)lane_of_layer * r->c->head_dim;
        float dot = 0;
        for (uint32_t i = 0; i < r->c->head_dim; i++) dot += q[i] * k[i];
        if (dot > best) count = 0, best = dot;
        if (dot == best) count++;
    }
    return count;
}

// Signs times `large`, some of them 0 ("do not care"), such that the weight is spread over 1, 2, 4, ... candidates.
static void draw_match(rig *r, float *q, uint32_t layer, uint32_t lane_of_layer) {
    const float large = 8192; // two signs more make 2 * 8192 / sqrt(d) in the exponent: exp of the negative is 0
    const uint32_t d = r->c->head_dim;
    for (uint32_t attempt = 0; attempt < 1000; attempt++) {
        const uint32_t care = 1 + draw(r, 8); // of 8
        for (uint32_t i = 0; i + 1 < d; i++) q[i] = draw(r, 8) >= care ? 0 : draw(r, 2) ? large : -large;
        q[d - 1] = 0;
        const uint32_t n = best_matches(r, layer, lane_of_layer, q);
        if ((n & (n - 1)) == 0) return; // also when no candidate exists yet: such a query is never used
    }
    fail_msg("%s: no query with a power of two of best matches", r->c->spec);
}

// For queries that are drawn before the candidates exist, or used at several compressions: the last element of the key
// decides between equal matches, so that there is one best candidate whatever they are.
static void draw_single(rig *r, float *q) {
    const uint32_t d = r->c->head_dim;
    for (uint32_t i = 0; i < d; i++) q[i] = i + 1 < d && draw(r, 2) ? -0x1p24f : 0x1p24f;
}

static void draw_multiples(rig *r, float *x, uint32_t n, uint32_t per_unit) { // in [-2, 2)
    for (uint32_t i = 0; i < n; i++)
        x[i] = (float)((int32_t)draw(r, 4 * per_unit) - (int32_t)(2 * per_unit)) / (float)per_unit;
}

// Key i is the i-th unit vector; the query of generated token i asks for the generated token by_hand[i].
static const uint32_t by_hand[] = {0, 0, 0, 0, 0, 1, 3, 0, 0, 5, 8};

static void draw_by_hand(rig *r, uint32_t pos, float *q, float *k) {
    const uint32_t i = r->number[pos];
    if (!i) return;
    k[i] = 1;
    q[by_hand[i]] = 0x1p14f;
}

static void draw_token(rig *r, uint32_t pos, bool prompt) {
    const rig_case *c = r->c;
    const bool compat = strstr(r->spec.text, "compat=1");
    const bool reused = !compat && (strstr(r->spec.text, "sel=prompt") || r->recent > r->period);
    for (uint32_t layer = 0; layer < RIG_LAYERS; layer++) {
        float *q = query_at(r, layer, pos), *k = key_at(r, layer, pos);
        switch (c->kind) {
        case BY_HAND: draw_by_hand(r, pos, q, k); break;
        case RANDOM:
        case GRID:
            draw_multiples(r, q, c->n_heads * c->head_dim, c->kind == GRID ? 8 : 256);
            draw_multiples(r, k, c->n_kv_heads * c->head_dim, c->kind == GRID ? 8 : 256);
            break;
        case EXACT:
            for (uint32_t g = 0; g < c->n_kv_heads; g++) draw_code(r, k + (size_t)g * c->head_dim, pos);
            for (uint32_t h = 0; h < c->n_heads; h++) {
                if (reused) draw_single(r, q + (size_t)h * c->head_dim);
                else if (!prompt) draw_match(r, q + (size_t)h * c->head_dim, layer, h / (c->n_heads / c->n_kv_heads));
            }
        }
    }
}

// ----------------------------------------------------------------------------------------- the engine's part

static void append(rig *r, uint32_t pos, int32_t slot) {
    const rig_case *c = r->c;
    const size_t q_len = (size_t)c->n_heads * c->head_dim;
    static const float no_value[PITH_MAX_HEAD_DIM];
    for (uint32_t layer = 0; layer < RIG_LAYERS; layer++) {
        for (uint32_t g = 0; g < c->n_kv_heads; g++) {
            pith_lane *lane = &r->lanes[layer * c->n_kv_heads + g];
            lane->n_rows++;
            pith_append_row(r->backend.kernels, &r->pages, lane, lane->n_rows - 1,
                            key_at(r, layer, pos) + (size_t)g * c->head_dim, no_value, (int32_t)pos);
        }
        assert_true(slot < (int32_t)r->window.cap);
        if (slot >= 0)
            memcpy(r->window.q + ((size_t)layer * r->window.cap + (uint32_t)slot) * q_len, query_at(r, layer, pos),
                   q_len * sizeof(float));
    }
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

static void compact(rig *r, pith_lane *lane, const uint32_t *rows, uint32_t n, const uint32_t *keep, uint32_t n_keep) {
    uint32_t to = 0, candidate = 0, kept = 0;
    for (uint32_t row = 0; row < lane->n_rows; row++) {
        bool stays = true;
        if (candidate < n && rows[candidate] == row) {
            stays = kept < n_keep && keep[kept] == candidate;
            kept += stays;
            candidate++;
        }
        if (stays) move_row(&r->pages, lane, to++, row);
    }
    assert_int_equal(kept, n_keep); // fails when `keep` is not ascending, unique and in range
    lane->n_rows = to;
}

static void print_event(rig *r, FILE *trace, uint32_t seq, uint32_t layer, int head, uint32_t before, pith_lane *lane) {
    fprintf(trace, "{\"event\":\"compress\",\"seq\":%u,\"step\":%u,\"layer\":%u,\"head\":", seq, r->n_generated, layer);
    if (head < 0) fprintf(trace, "null");
    else fprintf(trace, "%d", head);
    fprintf(trace, ",\"rows_before\":%u,\"rows_after\":%u,\"kept\":[", before, lane->n_rows);
    for (uint32_t row = 0; row < lane->n_rows; row++)
        fprintf(trace, "%s%d", row ? "," : "", *pith_lane_pos(&r->pages, lane, row));
    fprintf(trace, "]}\n");
}

static void compress(rig *r, FILE *trace, uint32_t seq) {
    const rig_case *c = r->c;
    for (uint32_t layer = 0; layer < RIG_LAYERS; layer++) {
        pith_lane *lanes = &r->lanes[layer * c->n_kv_heads];
        pith_event event = {
            .backend = &r->backend.base,
            .group = {.pages = &r->pages, .lanes = lanes, .window = &r->window, .layer = layer, .n_layers = 1},
            .protect = r->protect,
            .n_protect = r->n_protect,
        };
        r->spec.policy->select(&r->spec.params, &r->state, &event);
        const pith_scores *s = &event.scores;
        assert_true(s->n_sets == 1 || s->n_sets == c->n_kv_heads);
        const bool shared = s->n_sets == 1; // one set serves the layer, one line tells it
        for (uint32_t g = 0; g < c->n_kv_heads; g++) {
            const uint32_t before = lanes[g].n_rows;
            compact(r, &lanes[g], s->rows + (size_t)g * s->n, s->n, s->keep + (size_t)(shared ? 0 : g) * s->n_keep,
                    s->n_keep);
            if (!shared || g == 0) print_event(r, trace, seq, layer, shared ? -1 : (int)g, before, &lanes[g]);
        }
    }
    r->spec.policy->settle(&r->spec.params, &r->state);
    r->n_events++;
}

static void run(rig *r, FILE *trace, uint32_t seq) {
    const pith_policy *policy = r->spec.policy;
    uint32_t pos = 0;
    for (uint32_t t = 0; t < RIG_TURNS && r->c->turns[t][0]; t++) {
        const uint32_t n_prompt = r->c->turns[t][0];
        r->protect[r->n_protect++] = (pith_span){(int32_t)pos, (int32_t)(pos + n_prompt)};
        for (uint32_t i = 0; i < n_prompt; i++, pos++) {
            draw_token(r, pos, true);
            append(r, pos, policy->observe_prompt(&r->spec.params, &r->state, i, n_prompt));
        }
        for (uint32_t i = 0; i < r->c->turns[t][1]; i++, pos++) {
            r->number[pos] = ++r->n_generated;
            draw_token(r, pos, false);
            append(r, pos, policy->observe(&r->spec.params, &r->state));
            policy->advance(&r->spec.params, &r->state);
            if (policy->due(&r->spec.params, &r->state)) compress(r, trace, seq);
        }
    }
}

void rig_play(const rig_case *c, uint32_t seq, FILE *trace, FILE *data, size_t *n_q, size_t *n_k) {
    static rig r;
    rig_open(&r, c);
    run(&r, trace, seq);
    *n_q = (size_t)RIG_LAYERS * r.n * c->n_heads * c->head_dim;
    *n_k = (size_t)RIG_LAYERS * r.n * c->n_kv_heads * c->head_dim;
    assert_int_equal(fwrite(r.q, sizeof *r.q, *n_q, data), *n_q);
    assert_int_equal(fwrite(r.k, sizeof *r.k, *n_k, data), *n_k);
    rig_close(&r);
}
