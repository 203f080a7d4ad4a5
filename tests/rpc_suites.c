#include "rpc_suites.h"

#include "t.h"

// Three prompt tokens at positions 0 to 2, so generated token i is at 2 + i. P = 4, R = 2, T = 1: compressions at 6 and
// 10 as in the paper's figure 4. Queries 5 and 6 ask for 1 and 3, queries 9 and 10 for 5 and 8.
//   clean   1 and 3 tie, the lower stays; then 5 and 8 of {1, 5, 6, 7, 8}
//   compat  query 6 counts twice and 5 not at all: 3 stays; then 8, and 3 as the lowest of those with nothing
static const rig_case by_hand[] = {
    {"rpc:p=4,r=2,c=4,pool=none", BY_HAND, 1, 1, 16, 2, {{3, 10}}, 0},
    {"rpc:p=4,r=2,c=4,pool=none,compat=1", BY_HAND, 1, 1, 16, 4, {{3, 10}}, 0},
};

static const rig_case exact_clean[] = {
    {"rpc:p=16,r=4,c=4", EXACT, 4, 2, 16, 2, {{5, 100}}, 1},
    {"rpc:p=64,r=8,c=4", EXACT, 4, 2, 16, 4, {{20, 420}}, 2},
    {"rpc:p=16,r=4,c=8,agg=group", EXACT, 4, 2, 16, 2, {{5, 100}}, 3},
    {"rpc:p=16,r=4,c=4,agg=head", EXACT, 8, 2, 16, 2, {{5, 100}}, 4},
    {"rpc:p=16,r=4,c=2,agg=head,pool=max5", EXACT, 6, 3, 64, 2, {{1, 70}}, 5}, // prompt of one token
    {"rpc:p=16,r=8,pool=max3", EXACT, 4, 4, 16, 4, {{70, 60}}, 6},
    {"rpc:p=12,r=3,c=5,pool=none", EXACT, 2, 1, 16, 2, {{9, 90}}, 7},             // c does not divide P: T = 2
    {"rpc:p=10,r=3,c=2.5,pool=avg3,agg=group", EXACT, 4, 1, 16, 2, {{9, 60}}, 8}, // one group is the layer
    {"rpc:p=33,r=3,c=1.1", EXACT, 4, 2, 16, 2, {{9, 80}}, 9},             // T = 30, where division in doubles gives 29
    {"rpc:p=20,r=6,c=3,pool=avg255", EXACT, 4, 2, 16, 2, {{9, 120}}, 10}, // wider than the candidates
    {"rpc:p=4,r=10,c=2", EXACT, 4, 2, 16, 2, {{3, 90}}, 11},              // P < R: a query scores several compressions
    {"rpc:p=1,r=3,c=1", EXACT, 4, 2, 16, 2, {{3, 20}}, 12},               // keeps everything
    {"rpc:p=8,r=1,c=8", EXACT, 4, 2, 16, 2, {{3, 80}}, 13},               // T = 1
    {"rpc:p=16,r=4,sel=new", EXACT, 4, 2, 16, 2, {{5, 100}}, 14},
    {"rpc:p=16,r=4,sel=prompt", EXACT, 4, 2, 16, 2, {{9, 100}}, 15},
    {"rpc:p=16,r=8,sel=prompt,agg=group", EXACT, 4, 2, 16, 4, {{3, 50}, {12, 50}, {1, 40}}, 16}, // short prompts
    {"rpc:p=16,r=4", EXACT, 4, 2, 16, 2, {{7, 30}, {3, 1}, {70, 60}, {1, 25}, {2, 9}}, 17},      // turns, window across
    {"rpc:p=16,r=4,agg=group", EXACT, 4, 2, 16, 2, {{7, 18}, {3, 1}, {5, 60}, {1, 25}}, 18},
    {"rpc:p=16,r=4,agg=head,sel=new", EXACT, 8, 4, 16, 2, {{7, 19}, {3, 2}, {5, 60}, {1, 25}}, 19},
    {"rpc:p=7,r=5,c=3.5,agg=head,pool=avg5", EXACT, 6, 2, 16, 4, {{2, 6}, {1, 6}, {1, 40}}, 20},
};

static const rig_case exact_compat[] = {
    {"rpc:p=16,r=4,c=4,compat=1", EXACT, 4, 2, 16, 2, {{5, 100}}, 31},
    {"rpc:p=64,r=8,c=4,compat=1", EXACT, 4, 2, 16, 4, {{20, 420}}, 32},
    {"rpc:p=16,r=4,c=8,agg=group,compat=1", EXACT, 8, 2, 16, 2, {{5, 100}}, 33},
    {"rpc:p=16,r=1,c=4,compat=1", EXACT, 4, 2, 16, 2, {{5, 100}}, 34},
    {"rpc:p=4,r=10,c=2,compat=1", EXACT, 4, 2, 16, 2, {{3, 90}}, 35}, // R > P
    {"rpc:p=10,r=10,c=3,compat=1", EXACT, 4, 4, 16, 2, {{3, 90}}, 36},
    {"rpc:p=10,r=11,c=3,compat=1", EXACT, 4, 4, 16, 2, {{3, 90}}, 37},
    {"rpc:p=16,r=4,sel=new,compat=1", EXACT, 4, 2, 16, 2, {{5, 100}}, 38},
    {"rpc:p=16,r=4,sel=prompt,compat=1", EXACT, 4, 2, 16, 2, {{5, 100}}, 39}, // in truth sel=new
    {"rpc:p=16,r=4,pool=max5,compat=1", EXACT, 4, 2, 16, 2, {{5, 100}}, 40},
    {"rpc:p=33,r=3,c=1.1,compat=1", EXACT, 4, 2, 16, 2, {{9, 80}}, 41}, // T = 29
    {"rpc:p=16,r=4,agg=group,compat=1", EXACT, 4, 2, 16, 2, {{7, 30}, {3, 1}, {5, 60}, {1, 25}}, 42},
    {"rpc:p=1,r=1,c=1,compat=1", EXACT, 4, 2, 16, 2, {{3, 20}}, 43},
};

static rpc_suite listed(const char *name, const rig_case *cases, uint32_t n) {
    rpc_suite suite = {.name = name, .n = n};
    assert_true(n <= T_COUNT(suite.cases));
    memcpy(suite.cases, cases, n * sizeof *cases);
    return suite;
}

static rpc_suite every_setting(void) {
    static const char *const sizes[] = {"p=16,r=4,c=4", "p=9,r=3,c=3", "p=20,r=8,c=2.5"};
    static const char *const aggs[] = {"layer", "group", "head"}, *const sels[] = {"recent", "new", "prompt"},
                             *const pools[] = {"none", "avg7", "max3"};
    static char specs[54][PITH_SPEC_MAX];
    rpc_suite suite = {.name = "every setting"};
    for (uint32_t i = 0; i < T_COUNT(specs); i++) {
        const uint32_t agg = i % 3, sel = i / 3 % 3, pool = i / 9 % 3, compat = i / 27;
        if (agg == 2 && compat) continue; // is none
        snprintf(specs[i], sizeof specs[i], "rpc:%s,pool=%s,agg=%s,sel=%s,compat=%u", sizes[(agg + sel + pool) % 3],
                 pools[pool], aggs[agg], sels[sel], compat);
        suite.cases[suite.n++] = (rig_case){specs[i], EXACT, 4, 2, 16, 2, {{7, 40}, {2, 20}}, 50 + i};
    }
    return suite;
}

static rpc_suite drawn_random(void) {
    // no max pooling here: it repeats scores, which the oracle cannot tell from near ties
    static const char *const specs[] = {
        "rpc:p=16,r=4",
        "rpc:p=16,r=4,agg=group",
        "rpc:p=16,r=4,agg=head,pool=none",
        "rpc:p=24,r=8,c=3,pool=avg3",
        "rpc:p=16,r=6,sel=prompt",
        "rpc:p=16,r=4,sel=new,agg=head",
        "rpc:p=6,r=9,c=1.5",
    };
    rpc_suite suite = {.name = "random", .n = 28};
    for (uint32_t i = 0; i < suite.n; i++)
        suite.cases[i] =
            (rig_case){specs[i % 7], RANDOM, 6, 2, i / 7 % 2 ? 24 : 16, i % 3 ? 2 : 4, {{5, 50}, {3, 50}}, 100 + i};
    return suite;
}

static rpc_suite drawn_grid_compat(void) {
    static const char *const specs[] = {
        "rpc:p=16,r=4,compat=1",           "rpc:p=16,r=4,agg=group,compat=1",
        "rpc:p=16,r=4,pool=max3,compat=1", "rpc:p=8,r=12,compat=1",
        "rpc:p=32,r=4,pool=none,compat=1", // nothing hides the rounding of the mean
    };
    rpc_suite suite = {.name = "grid, compat", .n = 20};
    for (uint32_t i = 0; i < suite.n; i++)
        suite.cases[i] = (rig_case){specs[i % 5], GRID, 4, 2, 16, i % 3 ? 2 : 4, {{5, 70}}, 200 + i};
    return suite;
}

rpc_suite rpc_suite_of(rpc_suite_id id) {
    switch (id) {
    case RPC_BY_HAND: return listed("by hand", by_hand, T_COUNT(by_hand));
    case RPC_EXACT: return listed("exact", exact_clean, T_COUNT(exact_clean));
    case RPC_EXACT_COMPAT: return listed("exact, compat", exact_compat, T_COUNT(exact_compat));
    case RPC_EVERY_SETTING: return every_setting();
    case RPC_RANDOM: return drawn_random();
    case RPC_GRID_COMPAT: return drawn_grid_compat();
    }
    fail_msg("suite %d", (int)id);
    return (rpc_suite){0};
}

bool rpc_suite_is_exact(rpc_suite_id id) { return id != RPC_RANDOM && id != RPC_GRID_COMPAT; }

void rpc_suite_play(rpc_cases *cases, const rig_case *c, const rig_side *side) {
    size_t n_q, n_k;
    rig_play(c, side, cases->n, cases->trace, cases->data, &n_q, &n_k);
    rpc_cases_add(cases, &(rpc_case){.spec = c->spec,
                                     .n_layers = RIG_LAYERS,
                                     .n_heads = c->n_heads,
                                     .n_kv_heads = c->n_kv_heads,
                                     .head_dim = c->head_dim,
                                     .turns = c->turns,
                                     .n_turns = RIG_TURNS,
                                     .exact = c->kind == EXACT || c->kind == BY_HAND,
                                     .exact_dots = c->kind == GRID,
                                     .n_q = n_q,
                                     .n_k = n_k});
}
