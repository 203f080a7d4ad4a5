// Which rows RPC keeps on the CUDA backend: the cases of test_rpc_oracle.c, with the policy driving the backend's own
// event operations over a cache in the device's memory. Exits with 77 where no GPU is.
//
//     exact data    the kept sets are the CPU's, in all of the policy's settings, in f16 and in bf16
//     all data      they are those of the oracle that PITH_RPC_ORACLE names, up to where the error of f32 leaves a set
//                   open: how many cases end there is printed
#include "t.h"

#include "cuda/rpc_rig_cuda.h"
#include "rpc_suites.h"

static bool quick; // PITH_TEST_QUICK: each case in at most one of the two types, for an emulated device

// Four times the head size: the kernels' least is 64, and the square root stays a whole number where it is one.
static rig_case for_device(const rig_case *of) {
    rig_case c = *of;
    c.head_dim *= 4, c.elt_bytes = 2;
    return c;
}

// The number of lines, which have to be the same.
static uint32_t same_lines(FILE *ours, FILE *theirs) {
    static char a[1 << 14], b[1 << 14];
    uint32_t n = 0;
    rewind(ours), rewind(theirs);
    for (; fgets(b, sizeof b, theirs); n++) {
        assert_non_null(fgets(a, sizeof a, ours));
        assert_string_equal(a, b);
    }
    assert_null(fgets(a, sizeof a, ours));
    return n;
}

static void check_type(rpc_suite_id id, bool bf16) {
    const rpc_suite suite = rpc_suite_of(id);
    const bool exact = rpc_suite_is_exact(id);
    char what[64];
    snprintf(what, sizeof what, "%s, %s", suite.name, bf16 ? "bf16" : "f16");
    FILE *of_cpu = tmpfile();
    assert_non_null(of_cpu);
    rpc_cases cases;
    rpc_cases_open(&cases);
    for (uint32_t i = 0; i < suite.n; i++) {
        const rig_case c = for_device(&suite.cases[i]);
        size_t n_q, n_k;
        if (bf16 && !rig_fits_bf16(&c)) continue;
        if (quick && i % 2 != bf16) continue;
        if (exact) rig_play(&c, &rig_cpu, cases.n, of_cpu, NULL, &n_q, &n_k);
        rpc_suite_play(&cases, &c, bf16 ? &rig_cuda_bf16 : &rig_cuda_f16);
    }
    if (exact) print_message("%s: %u kept sets equal the CPU's\n", what, same_lines(cases.trace, of_cpu));
    fclose(of_cpu);
    rpc_cases_check(&cases, what, cases.n / 2); // the error's bound grows with the head size
}

static void check(rpc_suite_id id) {
    check_type(id, false);
    if (id != RPC_RANDOM) check_type(id, true);
}

static void by_hand(void **state) {
    (void)state;
    check(RPC_BY_HAND);
}

static void exact_clean(void **state) {
    (void)state;
    check(RPC_EXACT);
}

static void exact_compat(void **state) {
    (void)state;
    check(RPC_EXACT_COMPAT);
}

static void every_setting(void **state) {
    (void)state;
    check(RPC_EVERY_SETTING);
}

static void random_data(void **state) {
    (void)state;
    check(RPC_RANDOM);
}

static void grid_compat(void **state) {
    (void)state;
    check(RPC_GRID_COMPAT);
}

int main(void) {
    quick = getenv("PITH_TEST_QUICK") != NULL;
    pith_error err;
    const pith_status status = rig_cuda_probe(&err);
    if (status == PITH_E_UNSUPPORTED) return printf("skipped: %s\n", err.msg), 77;
    if (status != PITH_OK) return printf("%s\n", err.msg), 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(by_hand),      cmocka_unit_test(exact_clean),
                                       cmocka_unit_test(exact_compat), cmocka_unit_test(every_setting),
                                       cmocka_unit_test(random_data),  cmocka_unit_test(grid_compat)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
