// Which rows RPC keeps, against tests/oracle/rpc_oracle.py, event by event: the policy drives the CPU's event
// operations over a small cache (rpc_rig.h), the oracle gets the same queries and keys, and both write the same lines.
// Where the data is not exact, the oracle bounds the error of f32 and says when the bound leaves a kept set open.
#include "t.h"

#include "rpc_suites.h"

static void play(rpc_cases *cases, const rpc_suite *suite) {
    rpc_cases_open(cases);
    for (uint32_t i = 0; i < suite->n; i++) rpc_suite_play(cases, &suite->cases[i], &rig_cpu);
}

static void check(rpc_suite_id id) {
    const rpc_suite suite = rpc_suite_of(id);
    rpc_cases cases;
    play(&cases, &suite);
    rpc_cases_check(&cases, suite.name, suite.n / 4);
}

static void test_by_hand(void **state) {
    (void)state;
    static const char expected[] =
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
    static char text[1 << 14];
    const rpc_suite suite = rpc_suite_of(RPC_BY_HAND);
    rpc_cases cases;
    play(&cases, &suite);
    rewind(cases.trace);
    text[fread(text, 1, sizeof text - 1, cases.trace)] = 0;
    assert_string_equal(text, expected);
    rpc_cases_check(&cases, suite.name, 0);
}

static void test_exact_clean(void **state) {
    (void)state;
    check(RPC_EXACT);
}

static void test_exact_compat(void **state) {
    (void)state;
    check(RPC_EXACT_COMPAT);
}

static void test_every_setting(void **state) {
    (void)state;
    check(RPC_EVERY_SETTING);
}

static void test_random(void **state) {
    (void)state;
    check(RPC_RANDOM);
}

static void test_grid_compat(void **state) {
    (void)state;
    check(RPC_GRID_COMPAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),       cmocka_unit_test(test_exact_clean), cmocka_unit_test(test_exact_compat),
        cmocka_unit_test(test_every_setting), cmocka_unit_test(test_random),      cmocka_unit_test(test_grid_compat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
