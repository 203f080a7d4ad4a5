// Eviction is exact, not approximate: a compressed run against a dense reference in double precision whose evicted
// positions are masked out, token by token, and its kept sets against tests/oracle/rpc_oracle.py.
//
// Three independent links make the chain. The engine's keys and queries are the reference's, within the error of f32.
// From the very keys and queries that the engine holds, the oracle selects the same rows, event by event and layer by
// layer. And with these rows alone the reference has the engine's logits.
#include "calls.h"

#include "base/half.h"
#include "engine/engine.h" // for the cached keys and the window: nothing else shows them
#include "reference.h"
#include "rpc_cases.h"
#include "tiny.h"

enum { TURNS = 2, MAX_TOKENS = 320, CHUNK = 64 };

typedef struct eviction_case {
    const char *arch, *policy;
    pith_kv_type kv;
    uint32_t turns[TURNS][2]; // tokens of prompt and generated
    uint32_t n_events;
} eviction_case;

// f32: errors of rounding, most of them of the rotary angles, which ggml computes in f32 (at position 300 they are off
// by up to 2e-5). f16: both round keys and values to f16, but not always to the same side, which is a step of 2^-11.
typedef struct bounds {
    double logits; // in units of the logits' standard deviation
    double keys;   // and queries, in units of their largest element
} bounds;
static const bounds f32_bounds = {1e-4, 1e-5}, f16_bounds = {1e-3, 1e-3};

typedef struct session {
    const eviction_case *c;
    pith_engine *engine;
    pith_sequence *seq;
    reference masked, full; // with and without eviction
    const bounds *allowed;
    t_bound logits, keys, queries;
    double effect; // largest difference of the logits from the full run's, after the first event
    double top_key, top_query;
    uint32_t n_keys; // positions whose keys were compared
    float *q, *k;    // (n_layers, capacity, H, d), (n_layers, capacity, G, d) for the oracle
    rpc_cases *oracle;
} session;

// ------------------------------------------------------------------------------- keys and queries of the engine

static double largest(double seen, const double *x, size_t n) {
    for (size_t i = 0; i < n; i++) seen = fabs(x[i]) > seen ? fabs(x[i]) : seen;
    return seen;
}

static float cached_key(const pith_pages *pages, const pith_lane *lane, uint32_t row, uint32_t i) {
    const uint8_t *page = pith_page_at(pages, lane->pages[row / PITH_PAGE_ROWS]);
    const size_t at = pith_k_index(&pages->geo, row % PITH_PAGE_ROWS, i);
    return pages->geo.elt_bytes == 2 ? pith_f16_to_f32(((const uint16_t *)(const void *)page)[at])
                                     : ((const float *)(const void *)page)[at];
}

// The rows that the last step wrote are the last of each lane.
static void take_keys(session *s) {
    const pith_pages *pages = &s->engine->pool.pages;
    const pith_geometry *geo = &pages->geo;
    for (uint32_t l = 0; l < geo->n_layers; l++)
        for (uint32_t g = 0; g < geo->n_kv_heads; g++) {
            const pith_lane *lane = &s->seq->kv.lanes[pith_lane_index(geo, l, g)];
            for (uint32_t row = lane->n_rows; row-- > 0;) {
                const uint32_t pos = (uint32_t)*pith_lane_pos(pages, lane, row);
                if (pos < s->n_keys) break;
                const double *want = reference_key(&s->masked, l, pos, g);
                float *got = s->k + (((size_t)l * MAX_TOKENS + pos) * geo->n_kv_heads + g) * geo->head_dim;
                s->top_key = largest(s->top_key, want, geo->head_dim);
                for (uint32_t i = 0; i < geo->head_dim; i++) {
                    got[i] = cached_key(pages, lane, row, i);
                    t_within(&s->keys, (double)got[i], want[i], s->allowed->keys * s->top_key);
                }
            }
        }
    s->n_keys = s->masked.n;
}

static double distance(const float *a, const double *b, size_t n) {
    double worst = 0;
    for (size_t i = 0; i < n; i++) worst = fabs((double)a[i] - b[i]) > worst ? fabs((double)a[i] - b[i]) : worst;
    return worst;
}

// Every query in the window is one of the reference's. Which position it has is not ours to know: it is the nearest.
static void take_queries(session *s, uint32_t layer) {
    const pith_geometry *geo = &s->engine->geo;
    const size_t n = (size_t)geo->n_heads * geo->head_dim;
    for (uint32_t slot = 0; slot < s->seq->window.cap; slot++) {
        const float *got = s->seq->window.q + ((size_t)layer * s->seq->window.cap + slot) * n;
        bool is_empty = true;
        for (size_t i = 0; i < n && is_empty; i++) is_empty = got[i] == 0;
        if (is_empty) continue; // a prompt shorter than the window
        uint32_t nearest = 0;
        for (uint32_t pos = 1; pos < s->masked.n; pos++)
            if (distance(got, reference_query(&s->masked, layer, pos), n) <
                distance(got, reference_query(&s->masked, layer, nearest), n))
                nearest = pos;
        const double *want = reference_query(&s->masked, layer, nearest);
        s->top_query = largest(s->top_query, want, n);
        for (size_t i = 0; i < n; i++) t_within(&s->queries, (double)got[i], want[i], s->allowed->keys * s->top_query);
        memcpy(s->q + ((size_t)layer * MAX_TOKENS + nearest) * n, got, n * sizeof *got);
    }
}

// ---------------------------------------------------------------------------------------------------- one case

static void print_event(FILE *trace, uint32_t seq, const pith_compress_event *e) {
    fprintf(trace, "{\"event\":\"compress\",\"seq\":%u,\"step\":%u,\"layer\":%u,\"head\":", seq, e->step, e->layer);
    if (e->head < 0) fprintf(trace, "null");
    else fprintf(trace, "%d", (int)e->head);
    fprintf(trace, ",\"rows_before\":%u,\"rows_after\":%u,\"kept\":[", e->rows_before, e->rows_after);
    for (uint32_t i = 0; i < e->rows_after; i++) fprintf(trace, "%s%d", i ? "," : "", (int)e->kept[i]);
    fprintf(trace, "]}\n");
}

static void on_compress(void *ctx, const pith_compress_event *e) {
    session *s = ctx;
    if (e->head <= 0) take_queries(s, e->layer);
    reference_keep(&s->masked, e->layer, e->head, e->kept, e->rows_after);
    if (s->oracle) print_event(s->oracle->trace, s->oracle->n, e);
}

static void read_token(session *s, pith_token token) {
    reference_step(&s->masked, token);
    reference_step(&s->full, token);
}

static void compare_logits(session *s) {
    const float *got = pith_sequence_logits(s->seq);
    const double *want = s->masked.logits, *full = s->full.logits;
    const uint32_t n = s->masked.config->n_vocab;
    double mean = 0, variance = 0;
    assert_non_null(got);
    for (uint32_t i = 0; i < n; i++) mean += want[i] / n;
    for (uint32_t i = 0; i < n; i++) variance += (want[i] - mean) * (want[i] - mean) / n;
    for (uint32_t i = 0; i < n; i++) {
        t_within(&s->logits, (double)got[i], want[i], s->allowed->logits * sqrt(variance));
        const double effect = fabs((double)got[i] - full[i]) / sqrt(variance);
        s->effect = effect > s->effect ? effect : s->effect;
    }
}

static void step(session *s) {
    uint32_t n_active;
    OK(pith_engine_step(s->engine, &n_active, &err));
    take_keys(s);
}

static pith_token text(uint32_t pos) {
    t_rng rng = pos;
    return (pith_token)t_below(&rng, 256);
}

// The last token that a turn generates is drawn and not read: it enters the cache with the next turn. Our steps follow
// the reference's, so that an event finds there what the engine has.
static void play_turn(session *s, uint32_t n_prompt, uint32_t n_generated) {
    pith_token prompt[MAX_TOKENS];
    size_t n_tokens;
    pith_sequence_tokens(s->seq, &n_tokens);
    for (uint32_t i = 0; i < n_prompt; i++) prompt[i] = text((uint32_t)n_tokens + i);
    OK(pith_sequence_prompt(s->seq, prompt, n_prompt, &err));

    if (s->masked.n < n_tokens) {
        uint32_t n_active;
        read_token(s, text(s->masked.n));
        OK(pith_engine_step(s->engine, &n_active, &err)); // reads that token, may compress, and a part of the prompt
    }
    for (uint32_t i = 0; i < n_prompt; i++) read_token(s, prompt[i]);
    while (s->seq->phase == PITH_PREFILL) step(s);
    take_keys(s);
    compare_logits(s);
    for (uint32_t i = 0; i < n_generated; i++) {
        OK(pith_sequence_force(s->seq, text(s->masked.n), &err));
        if (i + 1 < n_generated) read_token(s, text(s->masked.n));
        step(s);
        if (i + 1 < n_generated) compare_logits(s);
    }
    assert_int_equal(s->seq->phase, PITH_LENGTH);
}

// Queries and keys of all N tokens that entered the cache.
static void tell_oracle(session *s) {
    const pith_geometry *geo = &s->engine->geo;
    const uint32_t N = s->masked.n;
    const size_t q_floats = (size_t)geo->n_heads * geo->head_dim, k_floats = (size_t)geo->n_kv_heads * geo->head_dim;
    uint32_t turns[TURNS][2];
    memcpy(turns, s->c->turns, sizeof turns);
    for (uint32_t t = TURNS; t-- > 0;)
        if (turns[t][0]) {
            turns[t][1]--;
            break;
        }
    for (uint32_t l = 0; l < geo->n_layers; l++)
        fwrite(s->q + l * MAX_TOKENS * q_floats, sizeof(float), N * q_floats, s->oracle->data);
    for (uint32_t l = 0; l < geo->n_layers; l++)
        fwrite(s->k + l * MAX_TOKENS * k_floats, sizeof(float), N * k_floats, s->oracle->data);
    rpc_cases_add(s->oracle, &(rpc_case){.spec = s->c->policy,
                                         .n_layers = geo->n_layers,
                                         .n_heads = geo->n_heads,
                                         .n_kv_heads = geo->n_kv_heads,
                                         .head_dim = geo->head_dim,
                                         .turns = turns,
                                         .n_turns = TURNS,
                                         .n_q = geo->n_layers * N * q_floats,
                                         .n_k = geo->n_layers * N * k_floats});
}

static pith_model *model_of(const char *arch) {
    char path[64];
    snprintf(path, sizeof path, "test_eviction.%d.gguf", (int)getpid());
    tiny_spec spec = tiny_default(arch, GGML_TYPE_F32);
    spec.rope_freqs = spec.biases = strcmp(arch, "llama") == 0;
    spec.n_heads = 8, spec.head_dim /= 2; // four query heads share a KV head
    assert_true(tiny_model_write(path, &spec));
    pith_model *model;
    OK(pith_model_load(path, NULL, &model, &err));
    remove(path); // stays mapped
    return model;
}

static void play(const eviction_case *c, rpc_cases *oracle) {
    session s = {.c = c,
                 .allowed = c->kv == PITH_KV_F32 ? &f32_bounds : &f16_bounds,
                 .logits.what = "logits",
                 .keys.what = "keys",
                 .queries.what = "queries",
                 .oracle = oracle};
    pith_model *model = model_of(c->arch);
    const pith_config *config = pith_model_config(model);
    pith_engine_params ep;
    pith_engine_params_init(&ep);
    ep.n_threads = 1, ep.kv_type = c->kv, ep.chunk = CHUNK, ep.n_ctx = 2 * MAX_TOKENS;
    OK(pith_engine_new(model, &ep, &s.engine, &err));
    pith_engine_on_compress(s.engine, on_compress, &s);
    pith_sequence_params sp;
    pith_sequence_params_init(&sp);
    sp.policy = c->policy, sp.max_new = c->turns[0][1], sp.ignore_end = true;
    OK(pith_sequence_new(s.engine, &sp, &s.seq, &err));
    const reference_rounding rounding = {.cache = c->kv == PITH_KV_F16 ? REF_F16 : REF_EXACT};
    reference_open(&s.masked, model, MAX_TOKENS, rounding);
    reference_open(&s.full, model, MAX_TOKENS, rounding);
    s.q = t_new((size_t)config->n_layers * MAX_TOKENS * config->n_heads * config->head_dim * sizeof *s.q);
    s.k = t_new((size_t)config->n_layers * MAX_TOKENS * config->n_kv_heads * config->head_dim * sizeof *s.k);

    for (uint32_t t = 0; t < TURNS && c->turns[t][0]; t++) play_turn(&s, c->turns[t][0], c->turns[t][1]);
    assert_int_equal(s.seq->n_compressions, c->n_events);
    print_message("%-6s %s %-34s used of the bounds: logits %2.0f %%  keys %2.0f %%  queries %2.0f %%; evicting moved "
                  "logits by %.0f bounds\n",
                  c->arch, c->kv == PITH_KV_F32 ? "f32" : "f16", c->policy, 100 * s.logits.used, 100 * s.keys.used,
                  100 * s.queries.used, s.effect / s.allowed->logits);
    assert_true(s.effect > 100 * s.allowed->logits); // else an engine that evicts nothing would pass
    if (oracle) tell_oracle(&s);

    free(s.q), free(s.k);
    reference_close(&s.masked), reference_close(&s.full);
    pith_engine_free(s.engine);
    pith_model_free(model);
}

static void play_all(const eviction_case *cases, uint32_t n, uint32_t most_open, const char *what) {
    rpc_cases oracle;
    rpc_cases_open(&oracle);
    for (uint32_t i = 0; i < n; i++) play(&cases[i], &oracle);
    rpc_cases_check(&oracle, what, most_open);
}

static void f32_cache(void **state) {
    (void)state;
    // 40 = P + R: the token between the turns is the one that compresses.
    static const eviction_case cases[] = {
        {"qwen2", "rpc:p=32,r=8,c=4", PITH_KV_F32, {{70, 120}}, 3},
        {"qwen2", "rpc:p=16,r=4,c=4,agg=group", PITH_KV_F32, {{20, 60}, {30, 60}}, 7},
        {"qwen2", "rpc:p=16,r=4,agg=head,pool=none", PITH_KV_F32, {{1, 60}}, 3},
        {"qwen3", "rpc:p=32,r=8,c=2", PITH_KV_F32, {{33, 40}, {65, 40}}, 2},
        {"qwen3", "rpc:p=16,r=24,c=3,agg=group", PITH_KV_F32, {{10, 80}}, 3},
        {"qwen3", "rpc:p=24,r=8,c=4,sel=new", PITH_KV_F32, {{40, 70}, {3, 70}}, 5},
        {"llama", "rpc:p=16,r=8,c=4,sel=prompt,agg=head", PITH_KV_F32, {{20, 60}, {5, 60}}, 6},
        {"llama", "rpc:p=20,r=5,c=2.5,pool=avg3", PITH_KV_F32, {{64, 70}, {64, 70}}, 6},
    };
    play_all(cases, T_COUNT(cases), 2, "f32 cache");
}

static void f16_cache(void **state) {
    (void)state;
    static const eviction_case cases[] = {
        {"qwen2", "rpc:p=16,r=4,c=4,agg=group", PITH_KV_F16, {{20, 60}, {30, 60}}, 7},
        {"qwen3", "rpc:p=32,r=8,c=2", PITH_KV_F16, {{33, 40}, {65, 40}}, 2},
        {"llama", "rpc:p=16,r=8,c=4,agg=head,pool=none", PITH_KV_F16, {{20, 60}, {5, 60}}, 6},
    };
    play_all(cases, T_COUNT(cases), 1, "f16 cache");
}

// Few and short queries: in bf16 most scores are certain, and where f32's error reaches across a rounding border, the
// oracle leaves the case.
static void compat(void **state) {
    (void)state;
    static const eviction_case cases[] = {
        {"qwen2", "rpc:p=8,r=2,c=4,compat=1", PITH_KV_F32, {{20, 29}}, 3},
        {"qwen2", "rpc:p=8,r=2,c=4,compat=1", PITH_KV_F16, {{3, 29}}, 3},
        {"qwen2", "rpc:p=8,r=3,c=2,agg=group,compat=1", PITH_KV_F32, {{20, 12}, {30, 12}}, 2},
        {"qwen2", "rpc:p=8,r=3,c=2,agg=group,compat=1", PITH_KV_F32, {{1, 12}, {64, 12}}, 2},
        {"qwen3", "rpc:p=8,r=12,c=4,compat=1", PITH_KV_F32, {{10, 31}}, 2},
        {"qwen3", "rpc:p=8,r=12,c=4,compat=1", PITH_KV_F16, {{64, 31}}, 2},
        {"qwen3", "rpc:p=10,r=3,c=4,pool=none,compat=1", PITH_KV_F16, {{10, 30}}, 2},
        {"qwen3", "rpc:p=10,r=3,c=4,pool=none,compat=1", PITH_KV_F32, {{55, 30}}, 2},
        {"llama", "rpc:p=16,r=4,sel=new,compat=1", PITH_KV_F16, {{33, 60}}, 3},
        {"llama", "rpc:p=16,r=4,sel=new,compat=1", PITH_KV_F32, {{80, 60}}, 3},
        {"llama", "rpc:p=12,r=2,c=3,agg=group,compat=1", PITH_KV_F32, {{33, 30}}, 2},
        {"llama", "rpc:p=12,r=2,c=3,agg=group,compat=1", PITH_KV_F16, {{5, 30}}, 2},
    };
    play_all(cases, T_COUNT(cases), T_COUNT(cases) / 2, "compat");
}

// Maxima repeat scores, which the oracle cannot tell from near ties: only that eviction is exact.
static void max_pooling(void **state) {
    (void)state;
    static const eviction_case cases[] = {
        {"qwen2", "rpc:p=16,r=4,c=4,pool=max5", PITH_KV_F32, {{20, 60}, {30, 60}}, 7},
        {"qwen3", "rpc:p=16,r=4,c=3,pool=max3,agg=head", PITH_KV_F16, {{20, 60}, {30, 60}}, 7},
    };
    for (size_t i = 0; i < T_COUNT(cases); i++) play(&cases[i], NULL);
}

// Policies that keep no queries and, at random, another set of rows in every head.
static void baselines(void **state) {
    (void)state;
    static const eviction_case cases[] = {
        {"qwen2", "window:p=16,r=4,c=4", PITH_KV_F32, {{20, 60}, {30, 60}}, 7},
        {"qwen3", "random:p=16,r=4,c=3", PITH_KV_F32, {{20, 60}, {30, 60}}, 7},
        {"llama", "random:p=16,r=4,budget=24", PITH_KV_F16, {{20, 60}, {30, 60}}, 5}, // of 119 tokens at 40, ..., 104
    };
    for (size_t i = 0; i < T_COUNT(cases); i++) play(&cases[i], NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32_cache),   cmocka_unit_test(f16_cache), cmocka_unit_test(compat),
        cmocka_unit_test(max_pooling), cmocka_unit_test(baselines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
