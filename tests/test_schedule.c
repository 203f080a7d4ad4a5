// How many rows the policies `window` and `random` hold: as many as RPC at every step, or what a budget says, and
// exactly what was promised. Token by token through the policies' own functions; the operations only count what they
// are asked.
#include "calls.h"

#include "policy/policy.h"

static pith_spec spec_of(const char *text) {
    pith_spec spec;
    OK(pith_spec_parse(text, &spec, &err));
    return spec;
}

// ------------------------------------------------------------------------------- operations that only count

enum { HEADS = 3, MOST = 1 << 13 }; // KV heads; candidates

typedef struct counter {
    pith_backend base;
    uint32_t n; // candidates, told beforehand
    uint32_t n_tail, n_protect;
    uint32_t n_scored; // calls that need scores
} counter;

static void op_candidates(pith_backend *b, const pith_group *group, const pith_span *protect, uint32_t n_protect,
                          uint32_t n_tail, pith_scores *out) {
    (void)group, (void)protect;
    counter *c = (counter *)(void *)b;
    c->n_tail = n_tail;
    c->n_protect = n_protect;
    *out = (pith_scores){.n = c->n};
}
static void op_mass(pith_backend *b, const pith_group *group, const uint32_t *slots, uint32_t n_slots, pith_arith arith,
                    pith_scores *s) {
    (void)group, (void)slots, (void)n_slots, (void)arith, (void)s;
    ((counter *)(void *)b)->n_scored++;
}
static void op_aggregate(pith_backend *b, const pith_geometry *geo, pith_aggregate how, pith_arith arith,
                         pith_scores *s) {
    (void)arith;
    ((counter *)(void *)b)->n_scored++;
    s->n_sets = how == PITH_AGG_LAYER ? 1 : geo->n_kv_heads;
}
static void op_pool(pith_backend *b, pith_pool pool, uint32_t width, pith_arith arith, pith_scores *s) {
    (void)pool, (void)width, (void)arith, (void)s;
    ((counter *)(void *)b)->n_scored++;
}
static void op_top(pith_backend *b, pith_scores *s, uint32_t k) {
    s->n_keep = k;
    ((counter *)(void *)b)->n_scored++;
}
static void op_choose(pith_backend *b, pith_scores *s, uint32_t n_sets, uint32_t n_keep, const uint32_t *keep) {
    (void)b, (void)keep;
    s->n_sets = n_sets, s->n_keep = n_keep;
}
static const pith_ops counting_ops = {.candidates = op_candidates,
                                      .mass = op_mass,
                                      .aggregate = op_aggregate,
                                      .pool = op_pool,
                                      .top = op_top,
                                      .choose = op_choose};

// The number of survivors that the policy names among n candidates.
static uint32_t select_once(const pith_spec *spec, const pith_policy_state *state, uint32_t n, counter *c) {
    static uint32_t keep[HEADS * MOST];
    assert_in_range(n, 1, MOST);
    *c = (counter){.base.ops = &counting_ops, .n = n};
    const pith_pages pages = {.geo = {.n_layers = 1, .n_heads = 6, .n_kv_heads = HEADS, .head_dim = 8, .elt_bytes = 2}};
    const pith_span protect[2] = {{0, 3}, {9, 12}};
    pith_event event = {.backend = &c->base,
                        .group = {.pages = &pages, .n_layers = 1},
                        .protect = protect,
                        .n_protect = 2,
                        .keep = keep};
    spec->policy->select(&spec->params, state, &event);
    assert_int_equal(c->n_protect, 2);
    assert_true(event.scores.n_keep <= n);
    return event.scores.n_keep;
}

// -------------------------------------------------------------------------- a cache that is only a number of rows

typedef struct tokens {
    pith_spec spec;
    pith_policy_state state;
    uint64_t rows, n_prompt, n_generated, peak, max_candidates;
    uint32_t n_events;
    uint64_t before, candidates, kept; // of the newest event
    bool scored;                       // did it need scores?
} tokens;

static tokens tokens_of(const char *spec) { return (tokens){.spec = spec_of(spec)}; }

static void add_prompt(tokens *t, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) t->spec.policy->observe_prompt(&t->spec.params, &t->state, i, n);
    t->rows += n;
    t->n_prompt += n;
    if (t->rows > t->peak) t->peak = t->rows;
}

// One generated token enters; true when that compressed.
static bool add_token(tokens *t, uint32_t recent) {
    const pith_policy *policy = t->spec.policy;
    policy->observe(&t->spec.params, &t->state);
    policy->advance(&t->spec.params, &t->state);
    t->rows++;
    t->n_generated++;
    if (t->rows > t->peak) t->peak = t->rows;
    if (!policy->due(&t->spec.params, &t->state)) return false;
    t->before = t->rows;
    t->candidates = t->rows - t->n_prompt - recent;
    counter c;
    t->kept = select_once(&t->spec, &t->state, (uint32_t)t->candidates, &c);
    t->scored = c.n_scored > 0;
    assert_int_equal(c.n_tail, recent);
    t->rows -= t->candidates - t->kept;
    if (t->candidates > t->max_candidates) t->max_candidates = t->candidates;
    t->n_events++;
    policy->settle(&t->spec.params, &t->state);
    assert_false(policy->due(&t->spec.params, &t->state));
    return true;
}

static void same_promise(const tokens *a, const tokens *b, uint32_t n_prompt, uint32_t max_new) {
    const uint32_t rows = (uint32_t)a->rows;
    assert_int_equal(a->spec.policy->peak_rows(&a->spec.params, &a->state, rows, n_prompt, max_new),
                     b->spec.policy->peak_rows(&b->spec.params, &b->state, rows, n_prompt, max_new));
    assert_int_equal(a->spec.policy->max_candidates(&a->spec.params, &a->state, max_new),
                     b->spec.policy->max_candidates(&b->spec.params, &b->state, max_new));
}

// -------------------------------------------------------------------------------------------------- how many rows

// Three turns, the later ones beginning anywhere: at every token the same rows, and the same worst case.
static void as_many_rows_as_rpc(void **state) {
    (void)state;
    static const struct {
        const char *options;
        uint32_t p, r;
    } sets[] = {
        {"p=16,r=4,c=8", 16, 4},   {"p=4,r=10,c=2", 4, 10},   {"p=10,r=3,c=4", 10, 3}, {"p=10,r=3,c=2.5", 10, 3},
        {"p=8,r=1,c=2", 8, 1},     {"p=8,r=2,c=1", 8, 2},     {"p=8,r=2,c=8", 8, 2},   {"p=1,r=2,c=1", 1, 2},
        {"p=33,r=2,c=1.1", 33, 2}, {"p=64,r=8,c=3.3", 64, 8}, {"p=7,r=7,c=3", 7, 7},   {"p=256,r=128,c=4", 256, 128},
    };
    static const char *const rivals[] = {"rpc", "rpc", "window", "random"};
    uint32_t n = 0;
    for (size_t i = 0; i < T_COUNT(sets); i++) {
        tokens t[4];
        for (size_t j = 0; j < 4; j++) {
            char text[96];
            snprintf(text, sizeof text, "%s:%s%s", rivals[j], sets[i].options, j == 1 ? ",agg=group" : "");
            t[j] = tokens_of(text);
        }
        for (uint32_t turn = 0; turn < 3; turn++) {
            for (size_t j = 0; j < 4; j++) add_prompt(&t[j], 5 + turn);
            for (uint32_t m = 0; m < sets[i].p * (turn + 1) + sets[i].r / 2 + 1; m++, n++) {
                const bool fired = add_token(&t[0], sets[i].r);
                for (size_t j = 1; j < 4; j++) {
                    assert_int_equal(add_token(&t[j], sets[i].r), fired);
                    assert_int_equal(t[j].rows, t[0].rows);
                    same_promise(&t[j], &t[0], m % 3, m * 2);
                    if (fired) assert_int_equal(t[j].scored, j == 1); // baselines need none
                }
            }
        }
        assert_true(t[0].n_events >= 4);
    }
    tokens t[3] = {tokens_of("rpc"), tokens_of("window"), tokens_of("random")}; // the defaults
    for (uint32_t m = 0; m < 16384; m++, n++) {
        const bool fired = add_token(&t[0], 32);
        for (size_t j = 1; j < 3; j++) {
            assert_int_equal(add_token(&t[j], 32), fired);
            assert_int_equal(t[j].rows, t[0].rows);
        }
    }
    assert_int_equal(t[0].n_events, 15);
    print_message("%u tokens with as many rows\n", n);
}

// A budget is what every compression leaves: literal numbers. The prompt of 10 comes on top.
static void a_budget_is_kept(void **state) {
    (void)state;
    static const struct {
        const char *spec;
        uint32_t recent, first, every; // compressions at first, first + every, ...
        uint32_t before, candidates, kept, after;
    } tables[] = {
        {"window:budget=100,p=20,r=10", 10, 120, 20, 130, 110, 90, 110},
        {"random:budget=100,p=20,r=10", 10, 120, 20, 130, 110, 90, 110},
        {"window:budget=512", 32, 640, 128, 650, 608, 480, 522},
        {"random:budget=1024,p=1024", 32, 2048, 1024, 2058, 2016, 992, 1034},
        {"window:budget=9,p=1,r=8", 8, 10, 1, 20, 2, 1, 19},
        {"random:budget=2,p=50,r=1", 1, 52, 50, 62, 51, 1, 12},
    };
    for (size_t i = 0; i < T_COUNT(tables); i++) {
        tokens t = tokens_of(tables[i].spec);
        add_prompt(&t, 10);
        while (t.n_events < 4) {
            if (!add_token(&t, tables[i].recent)) continue;
            assert_int_equal(t.n_generated, tables[i].first + (t.n_events - 1) * tables[i].every);
            assert_int_equal(t.before, tables[i].before);
            assert_int_equal(t.candidates, tables[i].candidates);
            assert_int_equal(t.kept, tables[i].kept);
            assert_int_equal(t.rows, tables[i].after);
        }
        assert_int_equal(t.peak, tables[i].before);
    }
}

// From the state of `t`, a turn of n_prompt and max_new tokens: what was promised is what happens.
static void check_promise(const tokens *before, uint32_t recent, uint32_t n_prompt, uint32_t max_new) {
    const pith_policy *policy = before->spec.policy;
    const uint32_t peak =
        policy->peak_rows(&before->spec.params, &before->state, (uint32_t)before->rows, n_prompt, max_new);
    const uint32_t candidates = policy->max_candidates(&before->spec.params, &before->state, max_new);
    tokens t = *before;
    t.peak = t.rows;
    t.max_candidates = 0;
    add_prompt(&t, n_prompt);
    for (uint32_t i = 0; i < max_new; i++) add_token(&t, recent);
    assert_int_equal(peak, t.peak);
    assert_int_equal(candidates, t.max_candidates);
}

static void worst_cases_are_exact(void **state) {
    (void)state;
    static const struct {
        const char *options;
        uint32_t p, r, first; // first event
    } sets[] = {
        {"p=16,r=4,c=8", 16, 4, 20},       {"p=4,r=10,c=2", 4, 10, 14},      {"p=10,r=3,c=4", 10, 3, 13},
        {"p=8,r=2,c=1", 8, 2, 10},         {"p=1,r=2,c=1", 1, 2, 3},         {"p=7,r=7,c=3", 7, 7, 14},
        {"p=8,r=4,budget=16", 8, 4, 24},   {"p=1,r=4,budget=5", 1, 4, 6},    {"p=7,r=32,budget=33", 7, 32, 40},
        {"p=20,r=3,budget=10", 20, 3, 30}, {"p=20,r=1,budget=2", 20, 1, 22}, {"p=16,r=8,budget=64", 16, 8, 80},
    };
    static const char *const names[] = {"window", "random"};
    uint32_t n = 0;
    for (size_t i = 0; i < 2 * T_COUNT(sets); i++) {
        const uint32_t p = sets[i / 2].p, r = sets[i / 2].r, first = sets[i / 2].first;
        char text[64];
        snprintf(text, sizeof text, "%s:%s", names[i % 2], sets[i / 2].options);
        tokens t = tokens_of(text);
        add_prompt(&t, 1);
        // a turn may begin at any state, and end anywhere
        for (uint32_t m = 0; m <= first + 2 * p + 1; m++) {
            for (uint32_t max_new = 0; max_new <= first + 2 * p; max_new += max_new < 2 * p ? 1 : 5, n++)
                check_promise(&t, r, m % 3, max_new);
            add_token(&t, r);
        }
        add_prompt(&t, 9);
        for (uint32_t max_new = 0; max_new <= 2 * p; max_new++, n++) check_promise(&t, r, 2, max_new);
    }
    print_message("%u turns as promised\n", n);

    const uint32_t most = UINT32_MAX;
    tokens t = tokens_of("window:budget=1024");
    assert_int_equal(t.spec.policy->peak_rows(&t.spec.params, &t.state, 0, 128, most), 128 + 1024 + 128);
    assert_int_equal(t.spec.policy->max_candidates(&t.spec.params, &t.state, most), 1024 + 128 - 32);
    assert_int_equal(t.spec.policy->peak_rows(&t.spec.params, &t.state, most, most, most), most);
    assert_int_equal(t.spec.policy->peak_rows(&t.spec.params, &t.state, 0, 128, 1151), 128 + 1151);
    assert_int_equal(t.spec.policy->max_candidates(&t.spec.params, &t.state, 1151), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_many_rows_as_rpc),
        cmocka_unit_test(a_budget_is_kept),
        cmocka_unit_test(worst_cases_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
