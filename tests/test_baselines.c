// The baselines `window` and `random`: which rows they keep, and that what is drawn at random is drawn fairly and
// depends on the sequence alone. First the policies by themselves, then on a tiny model in the engine. How many rows
// they keep is test_schedule.c's business.
#include "calls.h"

#include "base/rng.h"
#include "policy/policy.h"
#include "tiny.h"

static pith_spec spec_of(const char *text) {
    pith_spec spec;
    OK(pith_spec_parse(text, &spec, &err));
    return spec;
}

// ------------------------------------------------------------------------------------ they ask for candidates only

enum { HEADS = 3, MOST = 1 << 15 }; // KV heads; candidates

typedef struct counter {
    pith_backend base;
    uint32_t n; // candidates, told beforehand
} counter;

static void op_candidates(pith_backend *b, const pith_group *group, const pith_span *protect, uint32_t n_protect,
                          uint32_t n_tail, pith_scores *out) {
    (void)group, (void)protect, (void)n_protect, (void)n_tail;
    *out = (pith_scores){.n = ((counter *)(void *)b)->n};
}
static void op_choose(pith_backend *b, pith_scores *s, uint32_t n_sets, uint32_t n_keep, const uint32_t *keep) {
    (void)b;
    s->n_sets = n_sets, s->n_keep = n_keep;
    s->keep = (uint32_t *)(uintptr_t)keep; // the policy's own memory: looked at before it selects again
}
static const pith_ops no_scores = {.candidates = op_candidates, .choose = op_choose}; // anything else is a call of NULL

typedef struct selection {
    uint32_t n_sets, n_keep;
    uint32_t *keep; // (n_sets, n_keep), memory of the caller
} selection;

static uint32_t chosen_keep[HEADS * MOST];
static selection chosen = {.keep = chosen_keep};

// Lets the policy select among n candidates in a layer of a sequence whose own number is `draw`.
static void select_once(const pith_spec *spec, const pith_policy_state *state, uint32_t n, uint32_t layer,
                        uint64_t draw, selection *out) {
    assert_in_range(n, 1, MOST);
    counter c = {.base.ops = &no_scores, .n = n};
    const pith_pages pages = {.geo = {.n_layers = 4, .n_heads = 6, .n_kv_heads = HEADS, .head_dim = 8, .elt_bytes = 2}};
    pith_event event = {
        .backend = &c.base, .group = {.pages = &pages, .layer = layer, .n_layers = 1}, .draw = draw, .keep = out->keep};
    spec->policy->select(&spec->params, state, &event);
    assert_true(event.scores.n_keep <= n);
    assert_ptr_equal(event.scores.keep, out->keep);
    out->n_sets = event.scores.n_sets, out->n_keep = event.scores.n_keep;
}

// ----------------------------------------------------------------------------------------------------- which rows

static void window_keeps_the_newest(void **state) {
    (void)state;
    static const char *const specs[] = {"window:p=64,r=8,c=4", "window:p=64,r=8,budget=40", "window:p=8,r=2,c=1"};
    for (size_t i = 0; i < T_COUNT(specs); i++) {
        const pith_spec spec = spec_of(specs[i]);
        pith_policy_state s = {0};
        for (uint32_t k = 0; k < 5; k++) {
            const uint32_t n = i == 0 ? 64 + k * 16 : i == 1 ? 96 : 8 + k * 8, n_keep[] = {(k + 1) * 16, 32, n};
            select_once(&spec, &s, n, 0, 0, &chosen);
            assert_int_equal(chosen.n_sets, 1);
            assert_int_equal(chosen.n_keep, n_keep[i]);
            for (uint32_t j = 0; j < chosen.n_keep; j++) assert_int_equal(chosen.keep[j], n - chosen.n_keep + j);
            spec.policy->settle(&spec.params, &s);
        }
    }
}

// Number k of the compressions to come decides what is drawn; settling is what counts them.
static pith_policy_state after(const pith_spec *spec, uint32_t k) {
    pith_policy_state state = {0};
    for (uint32_t i = 0; i < k; i++) spec->policy->settle(&spec->params, &state);
    return state;
}

static void draw_at(const pith_spec *spec, uint32_t k, uint32_t n, uint32_t layer, uint64_t draw, selection *out) {
    const pith_policy_state s = after(spec, k);
    select_once(spec, &s, n, layer, draw, out);
    assert_int_equal(out->n_sets, HEADS);
    for (uint32_t h = 0; h < HEADS; h++) {
        const uint32_t *set = out->keep + (size_t)h * out->n_keep;
        for (uint32_t i = 0; i < out->n_keep; i++) {
            assert_true(set[i] < n);
            if (i > 0) assert_true(set[i - 1] < set[i]);
        }
    }
}

// The keys, literally: worked out in Python from the description in random.c.
static void random_draws_are_pinned(void **state) {
    (void)state;
    static const struct {
        const char *spec;
        uint32_t k, layer;
        uint64_t draw;
        uint32_t keep[HEADS][4]; // 4 of 12
    } tables[] = {
        {"random:r=1,budget=5", 0, 0, 0, {{1, 3, 4, 5}, {1, 2, 4, 9}, {3, 4, 9, 11}}},
        {"random:r=1,budget=5", 0, 3, 0, {{2, 4, 9, 11}, {1, 4, 6, 10}, {1, 3, 7, 11}}},
        {"random:r=1,budget=5", 1, 0, 0, {{3, 5, 7, 11}, {5, 9, 10, 11}, {4, 5, 6, 8}}},
        {"random:r=1,budget=5,seed=7", 0, 0, 0, {{5, 7, 10, 11}, {1, 7, 9, 11}, {0, 2, 9, 10}}},
        {"random:r=1,budget=5", 0, 0, UINT64_MAX, {{3, 4, 6, 8}, {5, 6, 7, 9}, {4, 6, 8, 11}}},
    };
    for (size_t i = 0; i < T_COUNT(tables); i++) {
        const pith_spec spec = spec_of(tables[i].spec);
        draw_at(&spec, tables[i].k, 12, tables[i].layer, tables[i].draw, &chosen);
        assert_int_equal(chosen.n_keep, 4);
        assert_memory_equal(chosen.keep, tables[i].keep, sizeof tables[i].keep);
    }
}

static void random_keeps_the_number_wanted(void **state) {
    (void)state;
    static const struct {
        const char *spec;
        uint32_t k, n, n_keep;
    } cases[] = {
        {"random:r=1,budget=2", 0, 1, 1},
        {"random:r=1,budget=2", 3, 2, 1},
        {"random:r=1,budget=2", 9, 20000, 1},
        {"random:r=1,budget=20001", 1, 20000, 20000},
        {"random:r=1,budget=20000", 1, 20000, 19999},
        {"random", 0, 1024, 256},
        {"random", 3, 1792, 1024},
        {"random:c=1", 4, 5120, 5120},
        {"random:p=10,c=4", 2, 14, 6},
    };
    for (size_t i = 0; i < T_COUNT(cases); i++) {
        const pith_spec spec = spec_of(cases[i].spec);
        t_guarded room = t_guard(HEADS * cases[i].n_keep * sizeof(uint32_t));
        selection exact = {.keep = room.p};
        draw_at(&spec, cases[i].k, cases[i].n, 1, 77, &exact);
        assert_int_equal(exact.n_keep, cases[i].n_keep);
        t_unguard(&room);
    }
}

// Chi-square with 19 degrees of freedom lies outside [3.9, 60] once in ten thousand times on either side at most.
static void check_chi_square(const char *what, double x) {
    print_message("%s: chi-square %.1f, 19 degrees of freedom\n", what, x);
    assert_true(x > 3.9 && x < 60);
}

// Every candidate and every subset is as likely as any other.
static void random_draws_are_fair(void **state) {
    (void)state;
    enum { EVENTS = 8000, N = 20, KEEP = 7, SETS = EVENTS * HEADS };
    pith_spec spec = spec_of("random:r=1,budget=8");
    double count[N] = {0};
    for (uint32_t k = 0; k < EVENTS; k++) {
        draw_at(&spec, k % 100, N, k % 4, k / 100, &chosen);
        for (uint32_t i = 0; i < HEADS * KEEP; i++) count[chosen.keep[i]]++;
    }
    // counts of a draw without replacement: variance p(1-p), covariance -p(1-p)/(N-1) per set
    const double p = (double)KEEP / N;
    double x = 0;
    for (uint32_t j = 0; j < N; j++) x += (count[j] - SETS * p) * (count[j] - SETS * p) / (SETS * p * (1 - p));
    check_chi_square("7 of 20, each candidate", x * (N - 1) / N);

    enum { SMALL = 6, SUBSETS = 20 }; // 3 of 6
    spec = spec_of("random:r=1,budget=4");
    double seen[1 << SMALL] = {0};
    for (uint32_t k = 0; k < EVENTS; k++) {
        draw_at(&spec, k % 100, SMALL, k % 4, k / 100, &chosen);
        for (uint32_t h = 0; h < HEADS; h++)
            seen[1u << chosen.keep[3 * h] | 1u << chosen.keep[3 * h + 1] | 1u << chosen.keep[3 * h + 2]]++;
    }
    const double expected = (double)SETS / SUBSETS;
    x = 0;
    for (uint32_t set = 0; set < 1 << SMALL; set++)
        if (__builtin_popcount(set) == 3) x += (seen[set] - expected) * (seen[set] - expected) / expected;
        else assert_true(seen[set] == 0);
    check_chi_square("3 of 6, each subset", x);
}

static uint32_t n_shared(const uint32_t *a, const uint32_t *b, uint32_t n) {
    uint32_t shared = 0;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < n; j++) shared += a[i] == b[j];
    return shared;
}

// Two sets that differ in one part of the key share as many rows as chance has it: 7 * 7 / 20 in the mean, with the
// variance of the hypergeometric distribution. With all parts equal they are equal.
static void random_draws_are_independent(void **state) {
    (void)state;
    enum { TRIALS = 4000, N = 20, KEEP = 7 };
    static const char *const parts[] = {"head", "layer", "compression", "sequence", "seed"};
    const pith_spec seeds[2] = {spec_of("random:r=1,budget=8"), spec_of("random:r=1,budget=8,seed=1")};
    static uint32_t a_keep[HEADS * KEEP], b_keep[HEADS * KEEP];
    selection a = {.keep = a_keep}, b = {.keep = b_keep};
    double shared[T_COUNT(parts)] = {0};
    for (uint32_t i = 0; i < TRIALS; i++) {
        const uint32_t k = i % 50;
        const uint64_t own = i / 50;
        draw_at(&seeds[0], k, N, 0, own, &a);
        shared[0] += n_shared(a.keep, a.keep + KEEP, KEEP);
        draw_at(&seeds[0], k, N, 1, own, &b);
        shared[1] += n_shared(a.keep, b.keep, KEEP);
        draw_at(&seeds[0], k + 1, N, 0, own, &b);
        shared[2] += n_shared(a.keep, b.keep, KEEP);
        draw_at(&seeds[0], k, N, 0, own + 1, &b);
        shared[3] += n_shared(a.keep, b.keep, KEEP);
        draw_at(&seeds[1], k, N, 0, own, &b);
        shared[4] += n_shared(a.keep, b.keep, KEEP);
        draw_at(&seeds[0], k, N, 0, own, &b);
        assert_memory_equal(a.keep, b.keep, HEADS * KEEP * sizeof *a.keep);
    }
    const double mean = (double)KEEP * KEEP / N, variance = KEEP * 0.35 * 0.65 * (N - KEEP) / (N - 1);
    for (size_t i = 0; i < T_COUNT(parts); i++) {
        t_bound bound = {.what = parts[i]};
        t_within(&bound, shared[i] / TRIALS, mean, 4 * sqrt(variance / TRIALS)); // four standard deviations
        t_report(&bound);
    }
}

// --------------------------------------------------------------------------------------------------- in the engine

static pith_model *model;

static int setup(void **state) {
    (void)state;
    tiny_spec spec = tiny_default("qwen2", GGML_TYPE_Q8_0);
    spec.gain = 3;
    model = tiny_model_open(&spec);
    return model ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    pith_model_free(model);
    return 0;
}

enum { LAYERS = 2, KV_HEADS = 2, SEQUENCES = 4, MAX_ROWS = 1024 };

// What the compressions of the sequences have kept, so far as one number each, and the latest event's.
typedef struct kept_set {
    int32_t pos[MAX_ROWS];
    uint32_t n;
} kept_set;
typedef struct record {
    const pith_sequence *seqs[SEQUENCES];
    uint64_t sum[SEQUENCES];
    uint32_t n_events[SEQUENCES]; // lines: layers and heads count
    void (*look)(const pith_compress_event *);
} record;

static void on_compress(void *ctx, const pith_compress_event *e) {
    record *r = ctx;
    const int32_t head[4] = {(int32_t)e->step, (int32_t)e->layer, e->head, (int32_t)e->rows_before};
    uint32_t i = 0;
    while (i < SEQUENCES && r->seqs[i] && r->seqs[i] != e->seq) i++;
    assert_in_range(i, 0, SEQUENCES - 1);
    r->seqs[i] = e->seq;
    if (!r->sum[i]) r->sum[i] = T_FNV_BEGIN;
    r->sum[i] = t_fnv(r->sum[i], head, sizeof head);
    r->sum[i] = t_fnv(r->sum[i], e->kept, e->rows_after * sizeof *e->kept);
    r->n_events[i]++;
    if (r->look) r->look(e);
}

static pith_engine *engine_of(uint32_t threads, uint32_t sequences, record *r) {
    pith_engine_params p;
    pith_engine_params_init(&p);
    p.n_threads = threads, p.max_sequences = sequences, p.chunk = 64, p.n_ctx = MAX_ROWS;
    pith_engine *engine;
    OK(pith_engine_new(model, &p, &engine, &err));
    *r = (record){0};
    pith_engine_on_compress(engine, on_compress, r);
    return engine;
}

// Streams from OTHER_SEED on are those of another sampling seed.
enum { OTHER_SEED = 100 };

static pith_sequence_params params_of(const char *policy, uint32_t max_new, uint64_t stream) {
    pith_sequence_params p;
    pith_sequence_params_init(&p);
    p.policy = policy, p.max_new = max_new, p.ignore_end = true;
    p.sampling.seed = stream < OTHER_SEED ? 5 : 6, p.sampling.stream = stream % OTHER_SEED;
    return p;
}

static pith_sequence *sequence_of(pith_engine *engine, record *r, const char *policy, uint32_t max_new,
                                  uint64_t stream) {
    const pith_sequence_params p = params_of(policy, max_new, stream);
    pith_sequence *seq;
    OK(pith_sequence_new(engine, &p, &seq, &err));
    for (uint32_t i = 0; i < SEQUENCES; i++)
        if (!r->seqs[i]) {
            r->seqs[i] = seq;
            break;
        }
    return seq;
}

static void prompt(pith_sequence *seq, uint32_t n, uint64_t seed) {
    pith_token tokens[MAX_ROWS];
    for (uint32_t i = 0; i < n; i++) tokens[i] = (pith_token)(pith_mix64(seed * 1000 + i) % 256);
    OK(pith_sequence_prompt(seq, tokens, n, &err));
}

static uint64_t tokens_sum(const pith_sequence *seq) {
    size_t n;
    const pith_token *tokens = pith_sequence_tokens(seq, &n);
    return t_fnv(T_FNV_BEGIN, tokens, n * sizeof *tokens);
}

// Rows and bytes of three policies that run side by side, whenever they have read as many tokens.
static void the_engine_holds_as_many_rows(void **state) {
    (void)state;
    static const char *const specs[] = {"rpc:p=32,r=8,c=4", "window:p=32,r=8,c=4", "random:p=32,r=8,c=4"};
    static pith_sequence_info at[3][MAX_ROWS]; // by tokens read
    memset(at, 0, sizeof at);
    record r;
    pith_engine *engine = engine_of(2, 3, &r);
    pith_sequence *seqs[3];
    for (uint32_t i = 0; i < 3; i++) seqs[i] = sequence_of(engine, &r, specs[i], 150, i);
    for (uint32_t turn = 0; turn < 2; turn++) {
        for (uint32_t i = 0; i < 3; i++) prompt(seqs[i], 40, i);
        for (uint32_t n_active = 1; n_active > 0;) {
            OK(pith_engine_step(engine, &n_active, &err));
            for (uint32_t i = 0; i < 3; i++) at[i][info_of(seqs[i]).rows_full] = info_of(seqs[i]);
        }
    }
    uint32_t n = 0;
    for (uint32_t read = 1; read < MAX_ROWS; read++)
        for (uint32_t i = 1; i < 3; i++) {
            if (!at[0][read].rows || !at[i][read].rows) continue; // within a step that read more than one token
            assert_int_equal(at[i][read].rows, at[0][read].rows);
            assert_int_equal(at[i][read].rows_peak, at[0][read].rows_peak);
            assert_int_equal(at[i][read].bytes, at[0][read].bytes);
            assert_int_equal(at[i][read].n_compressions, at[0][read].n_compressions);
            n++;
        }
    assert_true(n > 2 * 290);
    assert_int_equal(info_of(seqs[0]).n_compressions, 9); // of 299 tokens read, at 40, 72, ..., 296
    pith_engine_free(engine);
}

// Two turns: prompts at 0 ... 19 and 120 ... 149, all else is generated.
enum { PROMPT_1 = 20, TURN = 100, PROMPT_2 = 30 };
static uint32_t n_left;   // generated rows that an event leaves
static uint32_t n_recent; // of these, rows that stay for being recent
static kept_set last_kept[LAYERS][KV_HEADS];
static bool is_random;
static uint32_t n_looked, n_heads_differ, n_layers_differ;

static uint32_t position(uint32_t number) { // of generated token `number`, counted from 1
    return number <= TURN ? PROMPT_1 + number - 1 : PROMPT_1 + PROMPT_2 + number - 1;
}

static bool is_generated(uint32_t pos) {
    return pos >= PROMPT_1 && (pos < PROMPT_1 + TURN || pos >= PROMPT_1 + TURN + PROMPT_2);
}

static bool was_there(const kept_set *set, int32_t pos) {
    for (uint32_t i = 0; i < set->n; i++)
        if (set->pos[i] == pos) return true;
    return set->n == 0 || pos > set->pos[set->n - 1]; // nothing was evicted yet, or newer
}

static void look_at_rows(const pith_compress_event *e) {
    const uint32_t newest = position(e->step), n_prompt = newest >= PROMPT_1 + TURN ? PROMPT_1 + PROMPT_2 : PROMPT_1;
    kept_set *last = &last_kept[e->layer][e->head < 0 ? 0 : e->head];
    assert_int_equal(e->head >= 0, is_random);
    assert_int_equal(e->rows_after, n_prompt + n_left);
    const uint32_t n_tail = is_random ? n_recent : n_left;
    uint32_t prompts = 0, tail = 0, at = 0;
    for (uint32_t i = 0; i < e->rows_after; i++) {
        const uint32_t pos = (uint32_t)e->kept[i];
        assert_true(pos <= newest);
        assert_true(was_there(last, e->kept[i]));
        prompts += !is_generated(pos);
        tail += is_generated(pos) && pos >= position(e->step - n_tail + 1);
        if (i > 0) assert_true(e->kept[i - 1] < e->kept[i]);
        at = pos;
    }
    assert_int_equal(at, newest);
    assert_int_equal(prompts, n_prompt);
    assert_int_equal(tail, n_tail); // the window has no gap
    last->n = e->rows_after;
    memcpy(last->pos, e->kept, e->rows_after * sizeof *e->kept);
    n_looked++;
    if (!is_random) return;
    const kept_set *other = &last_kept[e->layer][0], *above = &last_kept[0][e->head];
    n_heads_differ += e->head > 0 && memcmp(other->pos, last->pos, last->n * sizeof *last->pos) != 0;
    n_layers_differ += e->layer > 0 && memcmp(above->pos, last->pos, last->n * sizeof *last->pos) != 0;
}

static void look_with_ratio(const pith_compress_event *e) { // p=16, r=4, c=4
    n_left = (e->step - 4) / 16 * 4 + 4;
    n_recent = 4;
    look_at_rows(e);
}

static void look_with_budget(const pith_compress_event *e) { // p=16, r=4, budget=20
    assert_int_equal(e->rows_before, e->rows_after + 16);
    n_left = 20;
    n_recent = 4;
    look_at_rows(e);
}

static void the_rows_that_stay(void **state) {
    (void)state;
    static const struct {
        const char *spec;
        void (*look)(const pith_compress_event *);
        bool is_random;
        uint32_t n_compressions; // 199 generated tokens get rows
    } cases[] = {
        {"window:p=16,r=4,c=4", look_with_ratio, false, 12},
        {"random:p=16,r=4,c=4", look_with_ratio, true, 12},
        {"window:p=16,r=4,budget=20", look_with_budget, false, 11}, // at 36, 52, ..., 196
        {"random:p=16,r=4,budget=20", look_with_budget, true, 11},
    };
    for (size_t i = 0; i < T_COUNT(cases); i++) {
        record r;
        pith_engine *engine = engine_of(1, 1, &r);
        r.look = cases[i].look;
        memset(last_kept, 0, sizeof last_kept);
        is_random = cases[i].is_random, n_looked = n_heads_differ = n_layers_differ = 0;
        pith_sequence *seq = sequence_of(engine, &r, cases[i].spec, TURN, 0);
        prompt(seq, PROMPT_1, 1);
        run_out(engine);
        prompt(seq, PROMPT_2, 2);
        run_out(engine);
        const uint32_t n = cases[i].n_compressions;
        assert_int_equal(info_of(seq).n_compressions, n);
        assert_int_equal(n_looked, n * LAYERS * (is_random ? KV_HEADS : 1));
        if (is_random) { // by chance they agree less than once in a thousand events
            assert_int_equal(n_heads_differ, n * LAYERS * (KV_HEADS - 1));
            assert_int_equal(n_layers_differ, n * (LAYERS - 1) * KV_HEADS);
        }
        pith_engine_free(engine);
    }
}

// Kept rows and answers of a sequence by itself.
static void alone(const char *spec, uint32_t n_prompt, uint64_t stream, uint64_t *rows, uint64_t *tokens) {
    record r;
    pith_engine *engine = engine_of(1, 1, &r);
    pith_sequence *seq = sequence_of(engine, &r, spec, 150, stream);
    prompt(seq, n_prompt, 7);
    run_out(engine);
    assert_true(r.n_events[0] > 0);
    *rows = r.sum[0], *tokens = tokens_sum(seq);
    pith_engine_free(engine);
}

static void neighbours_and_threads_change_nothing(void **state) {
    (void)state;
    static const char *const specs[SEQUENCES] = {"random:p=32,r=8,c=4", "window:p=32,r=8,budget=40",
                                                 "random:p=16,r=4,budget=20", "random:p=32,r=8,c=4"};
    uint64_t rows[SEQUENCES], tokens[SEQUENCES], other_rows, other_tokens;
    for (uint32_t i = 0; i < SEQUENCES; i++) alone(specs[i], 50, i, &rows[i], &tokens[i]);
    assert_true(rows[0] != rows[3]); // another stream loses other rows, another seed too
    alone(specs[0], 50, OTHER_SEED, &other_rows, &other_tokens);
    assert_true(other_rows != rows[0]);
    for (uint32_t threads = 1; threads <= 2; threads++) {
        record r;
        pith_engine *engine = engine_of(threads, SEQUENCES, &r);
        pith_sequence *seqs[SEQUENCES];
        for (uint32_t i = 0; i < SEQUENCES; i++) {
            uint32_t n_active;
            seqs[i] = sequence_of(engine, &r, specs[i], 150, i);
            prompt(seqs[i], 50, 7);
            for (uint32_t steps = 0; steps < 5 * i; steps++) OK(pith_engine_step(engine, &n_active, &err));
        }
        run_out(engine);
        for (uint32_t i = 0; i < SEQUENCES; i++) {
            assert_true(r.sum[i] == rows[i]);
            assert_true(tokens_sum(seqs[i]) == tokens[i]);
        }
        pith_engine_free(engine);
    }
}

static void forks_lose_rows_of_their_own(void **state) {
    (void)state;
    static const char *const specs[] = {"random:p=32,r=8,c=4", "random:p=16,r=4,budget=20", "window:p=32,r=8,c=4"};
    for (size_t s = 0; s < T_COUNT(specs); s++) {
        record r;
        pith_engine *engine = engine_of(1, SEQUENCES, &r);
        pith_sequence *seqs[SEQUENCES] = {sequence_of(engine, &r, specs[s], 150, 0)};
        prompt(seqs[0], 70, 7);
        uint32_t n_active;
        while (info_of(seqs[0]).phase == PITH_PREFILL) OK(pith_engine_step(engine, &n_active, &err));
        for (uint32_t i = 1; i < SEQUENCES; i++) {
            const pith_sequence_params p = params_of(specs[s], 150, i);
            OK(pith_sequence_fork(seqs[0], &p, &seqs[i], &err));
            r.seqs[i] = seqs[i];
        }
        run_out(engine);
        uint64_t rows, tokens;
        for (uint32_t i = 0; i < SEQUENCES; i++) {
            alone(specs[s], 70, i, &rows, &tokens);
            assert_true(r.sum[i] == rows);
            assert_true(tokens_sum(seqs[i]) == tokens);
            if (i > 0) assert_int_equal(r.sum[i] == r.sum[0], s == 2); // the window's rows are the same for all
        }
        pith_engine_free(engine);
    }
}

// A sequence that is rewound into its prompt loses the rows that a fresh one does.
static void rewinding_is_exact(void **state) {
    (void)state;
    static const char *const specs[] = {"random:p=32,r=8,c=4", "random:p=16,r=4,budget=20",
                                        "window:p=16,r=4,budget=20"};
    for (size_t s = 0; s < T_COUNT(specs); s++) {
        uint64_t rows, tokens;
        alone(specs[s], 50, 3, &rows, &tokens);
        record r;
        pith_engine *engine = engine_of(1, 1, &r);
        pith_sequence *seq = sequence_of(engine, &r, specs[s], 150, 3);
        pith_token history[60];
        for (uint32_t i = 0; i < 60; i++) history[i] = i < 40 ? (pith_token)(pith_mix64(7000 + i) % 256) : 9;
        OK(pith_sequence_prompt(seq, history, 60, &err));
        run_out(engine);
        for (uint32_t i = 40; i < 50; i++) history[i] = (pith_token)(pith_mix64(7000 + i) % 256);
        size_t n;
        OK(pith_sequence_rewind(seq, history, 50, &n, &err));
        assert_int_equal(n, 40);
        r.sum[0] = 0;
        OK(pith_sequence_prompt(seq, history + n, 50 - n, &err));
        run_out(engine);
        assert_true(r.sum[0] == rows);
        assert_true(tokens_sum(seq) == tokens);
        pith_engine_free(engine);
    }
}

static void peak_is_what_was_promised(void **state) {
    (void)state;
    static const char *const specs[] = {"window:p=64,r=8,c=4", "random:p=16,r=32,c=3", "window:budget=100,p=70,r=16",
                                        "random:budget=33,p=7"};
    for (size_t i = 0; i < T_COUNT(specs); i++)
        for (uint32_t max_new = 10; max_new < 400; max_new += 97) {
            record r;
            pith_engine *engine = engine_of(1, 1, &r);
            uint64_t promised;
            OK(pith_peak_bytes(engine, specs[i], 100, max_new - 1, &promised, &err)); // the last token gets no row
            pith_sequence *seq = sequence_of(engine, &r, specs[i], max_new, 0);
            prompt(seq, 100, 3);
            run_out(engine);
            assert_int_equal(info_of(seq).bytes_peak, promised);
            pith_engine_free(engine);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(window_keeps_the_newest),
        cmocka_unit_test(random_draws_are_pinned),
        cmocka_unit_test(random_keeps_the_number_wanted),
        cmocka_unit_test(random_draws_are_fair),
        cmocka_unit_test(random_draws_are_independent),
        cmocka_unit_test(the_engine_holds_as_many_rows),
        cmocka_unit_test(the_rows_that_stay),
        cmocka_unit_test(neighbours_and_threads_change_nothing),
        cmocka_unit_test(forks_lose_rows_of_their_own),
        cmocka_unit_test(rewinding_is_exact),
        cmocka_unit_test(peak_is_what_was_promised),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
