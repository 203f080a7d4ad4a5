// When RPC compresses, how many rows that leaves, which queries it uses, and that its worst cases are exact: token by
// token through the policy's own functions, against literal numbers and against the authors' counters. Which rows it
// keeps is test_rpc_oracle.c's business; here the operations only record what they are asked.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "policy/policy.h"

static pith_spec spec_of(const char *text) {
    pith_spec spec;
    pith_error err;
    if (pith_spec_parse(text, &spec, &err)) fail_msg("%s", err.msg);
    return spec;
}

// -------------------------------------------------------------------------------- operations that only record

enum { MAX_SLOTS = 4096 };

typedef struct recorder {
    pith_backend base;
    uint32_t n_candidates; // told beforehand
    uint32_t n_tail, n_protect, slots[MAX_SLOTS], n_slots, width, k;
    const pith_window *window;
    pith_arith mass_arith, aggregate_arith, pool_arith;
    pith_aggregate aggregate;
    pith_pool pool;
    char order[8]; // of the calls
} recorder;

static recorder *recorder_of(pith_backend *b, char call) {
    recorder *r = (recorder *)(void *)b;
    const size_t n = strlen(r->order);
    assert_true(n + 1 < sizeof r->order);
    r->order[n] = call;
    return r;
}

static void op_candidates(pith_backend *b, const pith_group *group, const pith_span *protect, uint32_t n_protect,
                          uint32_t n_tail, pith_scores *out) {
    (void)group, (void)protect;
    recorder *r = recorder_of(b, 'c');
    r->n_tail = n_tail;
    r->n_protect = n_protect;
    *out = (pith_scores){.n = r->n_candidates};
}
static void op_mass(pith_backend *b, const pith_group *group, const uint32_t *slots, uint32_t n_slots, pith_arith arith,
                    pith_scores *s) {
    recorder *r = recorder_of(b, 'm');
    assert_true(n_slots <= MAX_SLOTS);
    memcpy(r->slots, slots, n_slots * sizeof *slots);
    r->n_slots = n_slots;
    r->window = group->window;
    r->mass_arith = arith;
    s->n_sets = group->pages->geo.n_heads;
}
static void op_aggregate(pith_backend *b, const pith_geometry *geo, pith_aggregate aggregate, pith_arith arith,
                         pith_scores *s) {
    recorder *r = recorder_of(b, 'a');
    r->aggregate = aggregate;
    r->aggregate_arith = arith;
    s->n_sets = aggregate == PITH_AGG_LAYER ? 1 : geo->n_kv_heads;
}
static void op_pool(pith_backend *b, pith_pool pool, uint32_t width, pith_arith arith, pith_scores *s) {
    (void)s;
    recorder *r = recorder_of(b, 'p');
    r->pool = pool;
    r->width = width;
    r->pool_arith = arith;
}
static void op_top(pith_backend *b, pith_scores *s, uint32_t k) {
    recorder *r = recorder_of(b, 't');
    assert_true(k <= s->n);
    r->k = s->n_keep = k;
}

static const pith_ops recording_ops = {
    .candidates = op_candidates, .mass = op_mass, .aggregate = op_aggregate, .pool = op_pool, .top = op_top};

// Lets the policy select, with n candidates; the record stays valid until the next call.
static const recorder *select_once(const pith_spec *spec, const pith_policy_state *state, uint32_t n,
                                   uint32_t *n_sets) {
    static recorder r;
    static const pith_window window;
    r = (recorder){.base.ops = &recording_ops, .n_candidates = n};
    const pith_pages pages = {.geo = {.n_layers = 1, .n_heads = 6, .n_kv_heads = 3, .head_dim = 8, .elt_bytes = 2}};
    const pith_span protect[2] = {{0, 3}, {9, 12}};
    pith_event event = {.backend = &r.base,
                        .group = {.pages = &pages, .window = &window, .n_layers = 1},
                        .protect = protect,
                        .n_protect = 2};
    spec->policy->select(&spec->params, state, &event);
    assert_string_equal(r.order, "cmapt");
    assert_ptr_equal(r.window, &window);
    assert_int_equal(r.n_protect, 2);
    assert_int_equal(r.k, event.scores.n_keep);
    *n_sets = event.scores.n_sets;
    return &r;
}

// -------------------------------------------------------------------------- a cache that is only a number of rows

typedef struct tokens {
    pith_spec spec;
    pith_policy_state state;
    uint64_t rows, n_prompt, n_generated, peak;
    uint64_t max_candidates;
    uint32_t n_events;
    // of the newest event
    uint64_t at, before, candidates, kept;
    uint32_t n_sets;
    const recorder *record;
} tokens;

static tokens tokens_of(const char *spec) { return (tokens){.spec = spec_of(spec)}; }

static void add_prompt(tokens *t, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) t->spec.policy->observe_prompt(&t->spec.params, &t->state, i, n);
    t->rows += n;
    t->n_prompt += n;
    if (t->rows > t->peak) t->peak = t->rows;
}

// One generated token enters; true when that compressed.
static bool add_token(tokens *t, uint64_t recent) {
    const pith_policy *policy = t->spec.policy;
    policy->observe(&t->spec.params, &t->state);
    policy->advance(&t->spec.params, &t->state);
    t->rows++;
    t->n_generated++;
    if (t->rows > t->peak) t->peak = t->rows;
    if (!policy->due(&t->spec.params, &t->state)) return false;
    t->at = t->n_generated;
    t->before = t->rows;
    t->candidates = t->rows - t->n_prompt - recent;
    t->record = select_once(&t->spec, &t->state, (uint32_t)t->candidates, &t->n_sets);
    t->kept = t->record->k;
    t->rows -= t->candidates - t->kept;
    if (t->candidates > t->max_candidates) t->max_candidates = t->candidates;
    t->n_events++;
    policy->settle(&t->spec.params, &t->state);
    assert_false(policy->due(&t->spec.params, &t->state));
    return true;
}

// ---------------------------------------------------------------------- literal numbers

// The first four compressions for P = 1024, R = 32, c = 4, all 31 of 32768 tokens, and the rows that a step reads in
// the mean: a compression shrinks the cache after its step.
static void test_table_1024(void **state) {
    (void)state;
    static const uint64_t table[4][5] = {
        // m, rows before and after less the prompt, candidates, kept
        {1056, 1056, 288, 1024, 256},
        {2080, 1312, 544, 1280, 512},
        {3104, 1568, 800, 1536, 768},
        {4128, 1824, 1056, 1792, 1024},
    };
    const uint64_t L = 128;
    tokens t = tokens_of("rpc");
    add_prompt(&t, (uint32_t)L);
    uint64_t rows_read = 0;
    for (uint32_t m = 1; m <= 32768; m++) {
        rows_read += t.rows + 1;
        if (add_token(&t, 32) && t.n_events <= 4) {
            const uint64_t *want = table[t.n_events - 1];
            assert_int_equal(t.at, want[0]);
            assert_int_equal(t.before, L + want[1]);
            assert_int_equal(t.rows, L + want[2]);
            assert_int_equal(t.candidates, want[3]);
            assert_int_equal(t.kept, want[4]);
        }
        if (m == 4096) assert_int_equal(t.rows, 1920); // 45.5 % of 4224
        if (m == 8192) assert_int_equal(t.peak, 2944);
        if (m == 16384) assert_int_equal(t.peak, 4992);
    }
    assert_int_equal(t.n_events, 31);
    assert_int_equal(t.at, 31776);
    assert_int_equal(t.before, L + 8736);
    assert_int_equal(t.rows - (32768 - 31776), L + 7968); // after the last one
    assert_int_equal(t.rows, 9088);
    assert_int_equal(t.peak, 9088);
    assert_int_equal(rows_read * 4, (uint64_t)32768 * 18527); // 4631.75 in the mean, 28 % of the full cache's 16512.5
}

static void test_table_4096(void **state) {
    (void)state;
    static const uint32_t at[] = {4128, 8224, 12320, 16416, 20512, 24608, 28704};
    tokens t = tokens_of("rpc:p=4096");
    add_prompt(&t, 128);
    uint64_t rows_read = 0;
    for (uint32_t m = 1; m <= 32768; m++) {
        rows_read += t.rows + 1;
        if (add_token(&t, 32)) assert_int_equal(t.at, at[t.n_events - 1]);
        if (m == 4096) assert_int_equal(t.rows, 128 + 4096); // not compressed at all yet
        if (m == 16384) assert_int_equal(t.peak, 7296);
    }
    assert_int_equal(t.n_events, 7);
    assert_int_equal(t.rows, 11392);
    assert_int_equal(t.peak, 11392);
    assert_int_equal(rows_read * 2, (uint64_t)32768 * 11563); // 5781.5 in the mean
}

// Small and awkward ones: (spec, R), then m, rows before, candidates, kept, rows after for k = 1, 2, 3; prompt of 10.
static void test_tables_small(void **state) {
    (void)state;
    static const struct {
        const char *spec;
        uint32_t recent, rows[3][5];
    } tables[] = {
        {"rpc:p=64,r=8,c=4", 8, {{72, 82, 64, 16, 34}, {136, 98, 80, 32, 50}, {200, 114, 96, 48, 66}}},
        {"rpc:p=16,r=4,c=8", 4, {{20, 30, 16, 2, 16}, {36, 32, 18, 4, 18}, {52, 34, 20, 6, 20}}},
        {"rpc:p=4,r=10,c=2", 10, {{14, 24, 4, 2, 22}, {18, 26, 6, 4, 24}, {22, 28, 8, 6, 26}}},      // P < R
        {"rpc:p=10,r=3,c=4", 3, {{13, 23, 10, 2, 15}, {23, 25, 12, 4, 17}, {33, 27, 14, 6, 19}}},    // 10/4 is 2
        {"rpc:p=10,r=3,c=2.5", 3, {{13, 23, 10, 4, 17}, {23, 27, 14, 8, 21}, {33, 31, 18, 12, 25}}}, // 10/2.5 is 4
        {"rpc:p=8,r=1,c=2", 1, {{9, 19, 8, 4, 15}, {17, 23, 12, 8, 19}, {25, 27, 16, 12, 23}}},      // R = 1
        {"rpc:p=8,r=2,c=1", 2, {{10, 20, 8, 8, 20}, {18, 28, 16, 16, 28}, {26, 36, 24, 24, 36}}},    // evicts nothing
        {"rpc:p=8,r=2,c=8", 2, {{10, 20, 8, 1, 13}, {18, 21, 9, 2, 14}, {26, 22, 10, 3, 15}}},       // c = P
        {"rpc:p=1,r=2,c=1", 2, {{3, 13, 1, 1, 13}, {4, 14, 2, 2, 14}, {5, 15, 3, 3, 15}}},           // P = 1
        {"rpc:p=33,r=2,c=1.1", 2, {{35, 45, 33, 30, 42}, {68, 75, 63, 60, 72}, {101, 105, 93, 90, 102}}},
        // the reference's int(33 / 1.1) is 29
        {"rpc:p=33,r=2,c=1.1,compat=1", 2, {{35, 45, 33, 29, 41}, {68, 74, 62, 58, 70}, {101, 103, 91, 87, 99}}},
    };
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        tokens t = tokens_of(tables[i].spec);
        add_prompt(&t, 10);
        while (t.n_events < 3) {
            if (!add_token(&t, tables[i].recent)) continue;
            const uint32_t *want = tables[i].rows[t.n_events - 1];
            assert_int_equal(t.at, want[0]);
            assert_int_equal(t.before, want[1]);
            assert_int_equal(t.candidates, want[2]);
            assert_int_equal(t.kept, want[3]);
            assert_int_equal(t.rows, want[4]);
        }
    }
}

// ------------------------------------------------------------------------------ queries, against the authors' counters

// The generated tokens whose queries the authors' code uses at the compression that this token triggers, in order;
// 0 when it triggers none. `c_len` is the cache before the token, `n` their num_comp.
typedef struct reference {
    int64_t P, R, T, L, c_len, n;
    uint32_t gathered[MAX_SLOTS];
    uint32_t n_gathered;
} reference;

static uint32_t reference_token(reference *r, uint32_t number, uint32_t *used) {
    const int64_t target = r->c_len - r->L - r->n * r->T - r->R;
    if (target > r->P - r->R) r->gathered[r->n_gathered++] = number;
    r->c_len++;
    if (target != r->P - 1) return 0;
    uint32_t n = r->n_gathered;
    memcpy(used, r->gathered, n * sizeof *used);
    used[n++] = number;
    r->n_gathered = 0;
    r->n++;
    r->c_len = r->L + r->n * r->T + r->R;
    return n;
}

// Runs a spec with `ratio` c for some compressions. The slots that the policy hands to the operations must hold the
// queries of the tokens `wanted`, oldest first.
static void check_queries(uint32_t p, uint32_t r, uint32_t ratio, bool compat) {
    char text[96];
    snprintf(text, sizeof text, "rpc:p=%u,r=%u,c=%u,compat=%d", p, r, ratio, compat);
    tokens t = tokens_of(text);
    static reference ref;
    ref = (reference){.P = p, .R = r, .T = p / ratio, .L = 5, .c_len = 5};
    static uint32_t holds[MAX_SLOTS], used[MAX_SLOTS + 1]; // slot -> generated token, counted from 1
    const uint32_t n_slots = t.spec.policy->window(&t.spec.params);
    assert_int_equal(n_slots, r);
    assert_int_equal(t.spec.policy->max_queries(&t.spec.params), r);
    add_prompt(&t, 5);
    for (uint32_t number = 1; number <= r + 5 * p; number++) {
        pith_policy_state peek = t.state;
        const int32_t slot = t.spec.policy->observe(&t.spec.params, &peek);
        assert_in_range(slot, 0, n_slots - 1);
        holds[slot] = number;
        uint32_t n_used = reference_token(&ref, number, used);
        assert_int_equal(add_token(&t, r), n_used > 0); // both semantics fire at the same tokens
        if (!n_used) continue;
        assert_int_equal(t.rows, ref.c_len);
        if (!compat) {
            n_used = r;
            for (uint32_t i = 0; i < r; i++) used[i] = number - r + 1 + i;
        }
        assert_true(n_used <= r);
        assert_int_equal(t.record->n_slots, n_used);
        for (uint32_t i = 0; i < n_used; i++) assert_int_equal(holds[t.record->slots[i]], used[i]);
    }
    assert_int_equal(t.n_events, 5);
}

static void test_queries(void **state) {
    (void)state;
    static const uint32_t periods[] = {1, 2, 3, 4, 7, 16, 64}, windows[] = {1, 2, 3, 4, 5, 7, 8, 9, 40, 64, 200};
    uint32_t n = 0;
    for (size_t i = 0; i < 7; i++)
        for (size_t j = 0; j < 11; j++)
            for (uint32_t ratio = 1; ratio <= periods[i]; ratio = ratio * 3 + 1, n++) {
                check_queries(periods[i], windows[j], ratio, false);
                check_queries(periods[i], windows[j], ratio, true);
            }
    check_queries(1024, 32, 4, true);
    check_queries(8, 4096, 4, false);
    print_message("%u parameter sets, both semantics\n", n);
}

// compat=1, literally: at k = 1 and 2 with P = 8, R = 4 the queries 10 11 12 12 and 18 19 20 20 (9 and 17 are dropped).
static void test_queries_literal(void **state) {
    (void)state;
    tokens t = tokens_of("rpc:p=8,r=4,c=2,compat=1");
    while (t.n_events < 2) {
        if (!add_token(&t, 4)) continue;
        const uint32_t first = t.n_events * 8 + 2, want[4] = {first, first + 1, first + 2, first + 2};
        assert_int_equal(t.record->n_slots, 4);
        for (uint32_t i = 0; i < 4; i++) assert_int_equal(t.record->slots[i], (want[i] - 1) % 4);
    }
    // R > P: R-1 and a repetition at first, then all P of the period and a repetition
    t = tokens_of("rpc:p=2,r=5,c=2,compat=1");
    static const uint32_t counts[] = {5, 3, 3};
    while (t.n_events < 3)
        if (add_token(&t, 5)) assert_int_equal(t.record->n_slots, counts[t.n_events - 1]);
}

static void test_other_selectors(void **state) {
    (void)state;
    // the newest query: one slot, also where the reference is asked for the prompt's
    static const char *const newest[] = {"rpc:p=8,r=4,sel=new", "rpc:p=8,r=4,sel=new,compat=1",
                                         "rpc:p=8,r=4,sel=prompt,compat=1"};
    for (size_t i = 0; i < 3; i++) {
        tokens t = tokens_of(newest[i]);
        assert_int_equal(t.spec.policy->window(&t.spec.params), 1);
        assert_int_equal(t.spec.policy->max_queries(&t.spec.params), 1);
        assert_int_equal(t.spec.policy->observe_prompt(&t.spec.params, &t.state, 0, 1), -1);
        assert_int_equal(t.spec.policy->observe(&t.spec.params, &t.state), 0);
        while (!add_token(&t, 4)) {}
        assert_int_equal(t.record->n_slots, 1);
        assert_int_equal(t.record->slots[0], 0);
    }
    // the prompt's last 4, in order, for all events of the turn; a shorter prompt gives what it has
    tokens t = tokens_of("rpc:p=8,r=4,sel=prompt");
    const pith_policy *policy = t.spec.policy;
    assert_int_equal(policy->window(&t.spec.params), 4);
    for (int32_t i = 0; i < 7; i++)
        assert_int_equal(policy->observe_prompt(&t.spec.params, &t.state, (uint32_t)i, 7), i < 3 ? -1 : i - 3);
    for (uint32_t event = 0; event < 2; event++) {
        do assert_int_equal(policy->observe(&t.spec.params, &t.state), -1);
        while (!add_token(&t, 4));
        assert_int_equal(t.record->n_slots, 4);
        for (uint32_t i = 0; i < 4; i++) assert_int_equal(t.record->slots[i], i);
    }
    assert_int_equal(policy->observe_prompt(&t.spec.params, &t.state, 0, 2), 0);
    assert_int_equal(policy->observe_prompt(&t.spec.params, &t.state, 1, 2), 1);
    while (!add_token(&t, 4)) {}
    assert_int_equal(t.record->n_slots, 2);
}

static void test_operations(void **state) {
    (void)state;
    tokens t = tokens_of("rpc:p=8,r=4,pool=max9,agg=group");
    while (!add_token(&t, 4)) {}
    assert_int_equal(t.record->n_tail, 4);
    assert_int_equal(t.record->aggregate, PITH_AGG_GROUP);
    assert_int_equal(t.record->pool, PITH_POOL_MAX);
    assert_int_equal(t.record->width, 9);
    assert_int_equal(t.n_sets, 3);
    assert_int_equal(t.record->mass_arith, PITH_ARITH_F32);
    assert_int_equal(t.record->aggregate_arith, PITH_ARITH_F32);
    assert_int_equal(t.record->pool_arith, PITH_ARITH_F32);
    t = tokens_of("rpc:p=8,r=4,compat=1");
    while (!add_token(&t, 4)) {}
    assert_int_equal(t.record->aggregate, PITH_AGG_LAYER);
    assert_int_equal(t.record->pool, PITH_POOL_AVG);
    assert_int_equal(t.record->width, 7);
    assert_int_equal(t.n_sets, 1);
    assert_int_equal(t.record->mass_arith, PITH_ARITH_BF16);
    assert_int_equal(t.record->aggregate_arith, PITH_ARITH_BF16);
    assert_int_equal(t.record->pool_arith, PITH_ARITH_BF16);
}

// ------------------------------------------------------------------------------------------------------ worst cases

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

static void test_worst_cases(void **state) {
    (void)state;
    static const uint32_t sets[][3] = {{16, 4, 8}, {4, 10, 2}, {10, 3, 4}, {8, 1, 2}, {8, 2, 1},
                                       {8, 2, 8},  {1, 2, 1},  {7, 7, 3},  {5, 6, 5}, {64, 8, 4}};
    uint32_t n = 0;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        const uint32_t p = sets[i][0], r = sets[i][1];
        char text[64];
        snprintf(text, sizeof text, "rpc:p=%u,r=%u,c=%u", p, r, sets[i][2]);
        tokens t = tokens_of(text);
        add_prompt(&t, 1);
        // a turn may begin at any state: before, inside and after a window, and after any number of compressions
        for (uint32_t m = 0; m <= 3 * p + r + 1; m++) {
            for (uint32_t max_new = 0; max_new <= 3 * p + r; max_new += max_new < 2 * p ? 1 : 5, n++)
                check_promise(&t, r, m % 3, max_new);
            add_token(&t, r);
        }
        // a second prompt shifts everything
        add_prompt(&t, 9);
        for (uint32_t max_new = 0; max_new <= 2 * p; max_new++, n++) check_promise(&t, r, 2, max_new);
    }
    tokens t = tokens_of("rpc");
    check_promise(&t, 32, 128, 32768);
    print_message("%u turns as promised\n", n + 1);
}

static void test_worst_cases_of_huge_turns(void **state) {
    (void)state;
    const uint32_t most = UINT32_MAX;
    tokens t = tokens_of("rpc");
    const pith_policy *rpc = t.spec.policy;
    // k = floor((2^32 - 1 - 32) / 1024) = 4194303 compressions, the last one 991 tokens before the end, where there are
    // 128 + 4194303 * 256 + 32 + 991 rows; before that compression there were 223 fewer
    assert_int_equal(rpc->peak_rows(&t.spec.params, &t.state, 0, 128, most), 1073742719u);
    assert_int_equal(rpc->max_candidates(&t.spec.params, &t.state, most), 4194302u * 256 + 1024);
    assert_int_equal(rpc->peak_rows(&t.spec.params, &t.state, most, most, most), most);
    for (uint32_t m = 0; m < 5; m++) add_token(&t, 32); // then the tokens of all turns do not fit 32 bits
    assert_int_equal(rpc->peak_rows(&t.spec.params, &t.state, 5, 128, most), 1073742719u + 5);
    t = tokens_of("rpc:p=1,c=1,r=1"); // never evicts
    assert_int_equal(rpc->peak_rows(&t.spec.params, &t.state, 5, 1, most - 6), most);
    assert_int_equal(rpc->peak_rows(&t.spec.params, &t.state, 5, 1, most - 7), most - 1);
    assert_int_equal(rpc->peak_rows(&t.spec.params, &t.state, 6, 1, most), most);
    assert_int_equal(rpc->max_candidates(&t.spec.params, &t.state, most), most - 1);
    for (uint32_t m = 0; m < 5; m++) add_token(&t, 1);
    assert_int_equal(rpc->max_candidates(&t.spec.params, &t.state, most), most);
    assert_int_equal(rpc->peak_rows(&t.spec.params, &t.state, 5, 1, most), most);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_1024),
        cmocka_unit_test(test_table_4096),
        cmocka_unit_test(test_tables_small),
        cmocka_unit_test(test_queries),
        cmocka_unit_test(test_queries_literal),
        cmocka_unit_test(test_other_selectors),
        cmocka_unit_test(test_operations),
        cmocka_unit_test(test_worst_cases),
        cmocka_unit_test(test_worst_cases_of_huge_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
