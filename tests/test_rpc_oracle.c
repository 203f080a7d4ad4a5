// Which rows RPC keeps, against tests/oracle/rpc_oracle.py, event by event: the policy drives the CPU's event
// operations over a small cache (rpc_rig.h), the oracle gets the same queries and keys, and both write the same lines.
// Where the data is not exact, the oracle bounds the error of f32 and says when the bound leaves a kept set open.
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "rpc_cases.h"
#include "rpc_rig.h"

static void add(rpc_cases *cases, const rig_case *c) {
    size_t n_q, n_k;
    rig_play(c, cases->n, cases->trace, cases->data, &n_q, &n_k);
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

static void check_cases(const rig_case *list, uint32_t n, const char *literal, const char *what) {
    rpc_cases cases;
    rpc_cases_open(&cases);
    for (uint32_t i = 0; i < n; i++) add(&cases, &list[i]);
    if (literal) {
        static char text[1 << 14];
        rewind(cases.trace);
        text[fread(text, 1, sizeof text - 1, cases.trace)] = 0;
        assert_string_equal(text, literal);
    }
    rpc_cases_check(&cases, what, n / 4);
}

// Three prompt tokens at positions 0 to 2, so generated token i is at 2 + i. P = 4, R = 2, T = 1: compressions at 6 and
// 10 as in the paper's figure 4. Queries 5 and 6 ask for 1 and 3, queries 9 and 10 for 5 and 8.
//   clean   1 and 3 tie, the lower stays; then 5 and 8 of {1, 5, 6, 7, 8}
//   compat  query 6 counts twice and 5 not at all: 3 stays; then 8, and 3 as the lowest of those with nothing
static void test_by_hand(void **state) {
    (void)state;
    static const rig_case cases[] = {
        {"rpc:p=4,r=2,c=4,pool=none", BY_HAND, 1, 1, 16, 2, {{3, 10}}, 0},
        {"rpc:p=4,r=2,c=4,pool=none,compat=1", BY_HAND, 1, 1, 16, 4, {{3, 10}}, 0},
    };
    static const char literal[] =
        "{\"event\":\"compress\",\"seq\":0,\"step\":6,\"layer\":0,\"head\":null,\"rows_before\":9,\"rows_after\":6,"
        "\"kept\":[0,1,2,3,7,8]}\n"
        "{\"event\":\"compress\",\"seq\":0,\"step\":6,\"layer\":1,\"head\":null,\"rows_before\":9,\"rows_after\":6,"
        "\"kept\":[0,1,2,3,7,8]}\n"
        "{\"event\":\"compress\",\"seq\":0,\"step\":10,\"layer\":0,\"head\":null,\"rows_before\":10,\"rows_after\":7,"
        "\"kept\":[0,1,2,7,10,11,12]}\n"
        "{\"event\":\"compress\",\"seq\":0,\"step\":10,\"layer\":1,\"head\":null,\"rows_before\":10,\"rows_after\":7,"
        "\"kept\":[0,1,2,7,10,11,12]}\n"
        "{\"event\":\"compress\",\"seq\":1,\"step\":6,\"layer\":0,\"head\":null,\"rows_before\":9,\"rows_after\":6,"
        "\"kept\":[0,1,2,5,7,8]}\n"
        "{\"event\":\"compress\",\"seq\":1,\"step\":6,\"layer\":1,\"head\":null,\"rows_before\":9,\"rows_after\":6,"
        "\"kept\":[0,1,2,5,7,8]}\n"
        "{\"event\":\"compress\",\"seq\":1,\"step\":10,\"layer\":0,\"head\":null,\"rows_before\":10,\"rows_after\":7,"
        "\"kept\":[0,1,2,5,10,11,12]}\n"
        "{\"event\":\"compress\",\"seq\":1,\"step\":10,\"layer\":1,\"head\":null,\"rows_before\":10,\"rows_after\":7,"
        "\"kept\":[0,1,2,5,10,11,12]}\n";
    check_cases(cases, sizeof cases / sizeof *cases, literal, "by hand");
}

static void test_exact_clean(void **state) {
    (void)state;
    static const rig_case cases[] = {
        {"rpc:p=16,r=4,c=4", EXACT, 4, 2, 16, 2, {{5, 100}}, 1},
        {"rpc:p=64,r=8,c=4", EXACT, 4, 2, 16, 4, {{20, 420}}, 2},
        {"rpc:p=16,r=4,c=8,agg=group", EXACT, 4, 2, 16, 2, {{5, 100}}, 3},
        {"rpc:p=16,r=4,c=4,agg=head", EXACT, 8, 2, 16, 2, {{5, 100}}, 4},
        {"rpc:p=16,r=4,c=2,agg=head,pool=max5", EXACT, 6, 3, 64, 2, {{1, 70}}, 5}, // prompt of one token
        {"rpc:p=16,r=8,pool=max3", EXACT, 4, 4, 16, 4, {{70, 60}}, 6},
        {"rpc:p=12,r=3,c=5,pool=none", EXACT, 2, 1, 16, 2, {{9, 90}}, 7}, // c does not divide P: T = 2
        {"rpc:p=10,r=3,c=2.5,pool=avg3,agg=group", EXACT, 4, 1, 16, 2, {{9, 60}}, 8}, // one group is the layer
        {"rpc:p=33,r=3,c=1.1", EXACT, 4, 2, 16, 2, {{9, 80}}, 9}, // T = 30, where division in doubles gives 29
        {"rpc:p=20,r=6,c=3,pool=avg255", EXACT, 4, 2, 16, 2, {{9, 120}}, 10}, // wider than the candidates
        {"rpc:p=4,r=10,c=2", EXACT, 4, 2, 16, 2, {{3, 90}}, 11}, // P < R: a query scores several compressions
        {"rpc:p=1,r=3,c=1", EXACT, 4, 2, 16, 2, {{3, 20}}, 12},  // keeps everything
        {"rpc:p=8,r=1,c=8", EXACT, 4, 2, 16, 2, {{3, 80}}, 13},  // T = 1
        {"rpc:p=16,r=4,sel=new", EXACT, 4, 2, 16, 2, {{5, 100}}, 14},
        {"rpc:p=16,r=4,sel=prompt", EXACT, 4, 2, 16, 2, {{9, 100}}, 15},
        {"rpc:p=16,r=8,sel=prompt,agg=group", EXACT, 4, 2, 16, 4, {{3, 50}, {12, 50}, {1, 40}}, 16}, // short prompts
        {"rpc:p=16,r=4", EXACT, 4, 2, 16, 2, {{7, 30}, {3, 1}, {70, 60}, {1, 25}, {2, 9}}, 17}, // turns, window across
        {"rpc:p=16,r=4,agg=group", EXACT, 4, 2, 16, 2, {{7, 18}, {3, 1}, {5, 60}, {1, 25}}, 18},
        {"rpc:p=16,r=4,agg=head,sel=new", EXACT, 8, 4, 16, 2, {{7, 19}, {3, 2}, {5, 60}, {1, 25}}, 19},
        {"rpc:p=7,r=5,c=3.5,agg=head,pool=avg5", EXACT, 6, 2, 16, 4, {{2, 6}, {1, 6}, {1, 40}}, 20},
    };
    check_cases(cases, sizeof cases / sizeof *cases, NULL, "exact");
}

static void test_exact_compat(void **state) {
    (void)state;
    static const rig_case cases[] = {
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
    check_cases(cases, sizeof cases / sizeof *cases, NULL, "exact, compat");
}

static void test_random(void **state) {
    (void)state;
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
    static rig_case cases[28];
    for (uint32_t i = 0; i < 28; i++)
        cases[i] = (rig_case){specs[i % 7], RANDOM, 6, 2, i % 2 ? 24 : 32, i % 3 ? 2 : 4, {{5, 50}, {3, 50}}, 100 + i};
    check_cases(cases, 28, NULL, "random");
}

static void test_grid_compat(void **state) {
    (void)state;
    static const char *const specs[] = {
        "rpc:p=16,r=4,compat=1",           "rpc:p=16,r=4,agg=group,compat=1",
        "rpc:p=16,r=4,pool=max3,compat=1", "rpc:p=8,r=12,compat=1",
        "rpc:p=32,r=4,pool=none,compat=1", // nothing hides the rounding of the mean
    };
    static rig_case cases[20];
    for (uint32_t i = 0; i < 20; i++)
        cases[i] = (rig_case){specs[i % 5], GRID, 4, 2, 16, i % 3 ? 2 : 4, {{5, 70}}, 200 + i};
    check_cases(cases, 20, NULL, "grid, compat");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand), cmocka_unit_test(test_exact_clean), cmocka_unit_test(test_exact_compat),
        cmocka_unit_test(test_random),  cmocka_unit_test(test_grid_compat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
