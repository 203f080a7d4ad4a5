#include "rpc_rig.h"

#include "t.h"

enum { MAX_PAGES = RIG_MOST_TOKENS / PITH_PAGE_ROWS };

// ------------------------------------------------------------------------------------------- one running case

typedef struct rig {
    const rig_case *c;
    pith_spec spec;
    pith_policy_state state;
    const rig_side *side;
    pith_backend *backend;
    pith_pages pages;
    pith_lane lanes[RIG_LAYERS * RIG_MOST_LANES]; // (n_layers, G)
    pith_page_id ids[RIG_LAYERS * RIG_MOST_LANES][MAX_PAGES];
    pith_span protect[RIG_TURNS];
    uint32_t n_protect;
    pith_window window;
    float *q, *k;                     // (n_layers, N, H, d), (n_layers, N, G, d): the whole timeline, for the oracle
    uint32_t n;                       // N
    uint32_t number[RIG_MOST_TOKENS]; // by position: i for the i-th generated token, 0 for a prompt's
    uint32_t n_generated, n_events;
    uint64_t period; // P
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

static uint64_t number_in(const char *spec, const char *key) {
    const char *at = strstr(spec, key);
    assert_non_null(at);
    return strtoull(at + strlen(key), NULL, 10);
}

static pith_spec spec_of(const rig_case *c) {
    pith_spec spec;
    pith_error err;
    if (pith_spec_parse(c->spec, &spec, &err)) fail_msg("%s", err.msg);
    return spec;
}

static void open_pages(rig *r, const pith_geometry *geo, uint32_t n_pages) {
    r->pages = (pith_pages){.page_bytes = pith_page_bytes(geo), .geo = *geo};
    r->pages.base = aligned_alloc(PITH_PAGE_ALIGN, r->pages.page_bytes * n_pages);
    assert_non_null(r->pages.base);
    // all bits set: NaN in every type, so that garbage which reaches a result is seen
    memset(r->pages.base, 0xff, r->pages.page_bytes * n_pages);
    for (uint32_t lane = 0, id = 0; lane < pith_n_lanes(geo); lane++) {
        for (uint32_t p = 0; p < MAX_PAGES; p++) r->ids[lane][p] = id++;
        r->lanes[lane] = (pith_lane){.pages = r->ids[lane], .cap_pages = MAX_PAGES};
    }
}

static void rig_open(rig *r, const rig_case *c, const rig_side *side) {
    *r = (rig){.c = c, .side = side, .spec = spec_of(c), .random = c->seed};
    r->period = number_in(r->spec.text, ":p=");
    uint32_t n_generated = 0;
    for (uint32_t t = 0; t < RIG_TURNS; t++) r->n += c->turns[t][0] + c->turns[t][1], n_generated += c->turns[t][1];
    assert_true(r->n <= RIG_MOST_TOKENS && c->n_kv_heads <= RIG_MOST_LANES);

    const pith_policy *policy = r->spec.policy;
    r->window.cap = policy->window(&r->spec.params);
    const rig_room room = {
        .geo = {RIG_LAYERS, c->n_heads, c->n_kv_heads, c->head_dim, c->elt_bytes},
        .n_pages = RIG_LAYERS * c->n_kv_heads * MAX_PAGES,
        // exactly: one more would be out of bounds
        .n_candidates = policy->max_candidates(&r->spec.params, &r->state, n_generated),
        .n_queries = policy->max_queries(&r->spec.params),
        .window_cap = r->window.cap,
    };
    open_pages(r, &room.geo, room.n_pages);
    r->window.q = t_new((size_t)RIG_LAYERS * r->window.cap * c->n_heads * c->head_dim * sizeof *r->window.q);
    r->q = t_new((size_t)RIG_LAYERS * r->n * c->n_heads * c->head_dim * sizeof *r->q);
    r->k = t_new((size_t)RIG_LAYERS * r->n * c->n_kv_heads * c->head_dim * sizeof *r->k);
    r->backend = side->open(&room);
}

static void rig_close(rig *r) {
    r->side->close();
    free(r->pages.base);
    free(r->window.q);
    free(r->q);
    free(r->k);
}

// ---------------------------------------------------------------------------------------------------- the data

// Keys this large leave queries that f16 has.
static const float unit = 512;

// EXACT keys, in units: d-1 signs, then a number in [0, 2048) / 2048 that no other position of the lane has.
static void draw_code(rig *r, float *k, uint32_t pos) {
    const uint32_t d = r->c->head_dim;
    for (uint32_t i = 0; i + 1 < d; i++) k[i] = draw(r, 2) ? unit : -unit;
    k[d - 1] = unit * (float)(pos * 1031 % 2048) / 2048; // exact in f16
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

// Signs times `large`, most of them 0 ("do not care"), such that the weight is spread over 1, 2, 4, ... candidates.
static void draw_match(rig *r, float *q, uint32_t layer, uint32_t lane_of_layer) {
    const float large = 8192 / unit; // two signs more make 2 * 8192 / sqrt(d) in the exponent: exp of the negative is 0
    const uint32_t d = r->c->head_dim;
    for (uint32_t attempt = 0; attempt < 1000; attempt++) {
        const uint32_t care = 1 + draw(r, 8); // of d / 2: with more of them matches are rarely equal
        for (uint32_t i = 0; i + 1 < d; i++) q[i] = draw(r, d / 2) >= care ? 0 : draw(r, 2) ? large : -large;
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
    const float large = 0x1p24f / unit;
    for (uint32_t i = 0; i < d; i++) q[i] = i + 1 < d && draw(r, 2) ? -large : large;
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

// Is a query used before its candidates exist, or at several compressions?
static bool reuses_queries(const pith_spec *spec) {
    if (strstr(spec->text, "compat=1")) return false;
    return strstr(spec->text, "sel=prompt") || number_in(spec->text, ",r=") > number_in(spec->text, ":p=");
}

bool rig_fits_bf16(const rig_case *c) {
    const pith_spec spec = spec_of(c);
    return c->kind != RANDOM && !(c->kind == EXACT && reuses_queries(&spec)); // else the code's last element decides
}

static void draw_token(rig *r, uint32_t pos, bool prompt) {
    const rig_case *c = r->c;
    const bool reused = reuses_queries(&r->spec);
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
    for (uint32_t layer = 0; layer < RIG_LAYERS; layer++) {
        for (uint32_t g = 0; g < c->n_kv_heads; g++) {
            pith_lane *lane = &r->lanes[layer * c->n_kv_heads + g];
            lane->n_rows++;
            r->side->write_row(&r->pages, lane, lane->n_rows - 1, key_at(r, layer, pos) + (size_t)g * c->head_dim,
                               (int32_t)pos);
        }
        assert_true(slot < (int32_t)r->window.cap);
        if (slot >= 0)
            memcpy(r->window.q + ((size_t)layer * r->window.cap + (uint32_t)slot) * q_len, query_at(r, layer, pos),
                   q_len * sizeof(float));
    }
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

static void expect_same_rows(const rig *r, const pith_lane *a, const pith_lane *b) {
    assert_int_equal(a->n_rows, b->n_rows);
    for (uint32_t row = 0; row < a->n_rows; row++)
        assert_int_equal(*pith_lane_pos(&r->pages, a, row), *pith_lane_pos(&r->pages, b, row));
}

// The layers of the group have been compressed; their lanes' numbers of rows follow.
static void settle_layers(rig *r, const pith_event *event, FILE *trace, uint32_t seq) {
    const uint32_t n_lanes = r->c->n_kv_heads;
    const pith_scores *s = &event->scores;
    const bool shared = s->n_sets == 1; // one set serves the layer, one line tells it
    for (uint32_t i = 0; i < event->group.n_layers * n_lanes; i++) {
        const uint32_t layer = event->group.layer + i / n_lanes, g = i % n_lanes;
        pith_lane *lane = &r->lanes[layer * n_lanes + g];
        const uint32_t before = lane->n_rows;
        lane->n_rows -= s->n - s->n_keep;
        if (!shared || g == 0) print_event(r, trace, seq, layer, shared ? -1 : (int)g, before, lane);
        else expect_same_rows(r, lane, lane - g);
    }
}

static void compress(rig *r, FILE *trace, uint32_t seq) {
    const rig_side *side = r->side;
    for (uint32_t layer = 0; layer < RIG_LAYERS; layer += side->n_layers) {
        pith_event event = {
            .backend = r->backend,
            .group = {.pages = &r->pages,
                      .lanes = &r->lanes[layer * r->c->n_kv_heads],
                      .window = &r->window,
                      .layer = layer,
                      .n_layers = side->n_layers},
            .protect = r->protect,
            .n_protect = r->n_protect,
        };
        if (side->enter) side->enter(&event);
        r->spec.policy->select(&r->spec.params, &r->state, &event);
        assert_true(event.scores.n_sets == 1 || event.scores.n_sets == r->c->n_kv_heads);
        side->compact(&event);
        settle_layers(r, &event, trace, seq);
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

void rig_play(const rig_case *c, const rig_side *side, uint32_t seq, FILE *trace, FILE *data, size_t *n_q,
              size_t *n_k) {
    static rig r;
    rig_open(&r, c, side);
    run(&r, trace, seq);
    *n_q = (size_t)RIG_LAYERS * r.n * c->n_heads * c->head_dim;
    *n_k = (size_t)RIG_LAYERS * r.n * c->n_kv_heads * c->head_dim;
    if (data) {
        assert_int_equal(fwrite(r.q, sizeof *r.q, *n_q, data), *n_q);
        assert_int_equal(fwrite(r.k, sizeof *r.k, *n_k, data), *n_k);
    }
    rig_close(&r);
}
